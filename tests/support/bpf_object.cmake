# Compiles SOURCE with CLANG and FLAGS to OBJECT, and compares what libbpf reads of it (bpftool's
# skeleton: programs, maps, variables) with the object LIKE. Its hashes are preallocated
# (BPF_F_NO_PREALLOC is the only flag a map has): Linux before 6.1 refuses others to programs of
# perf events, and warns of them in uprobes.
execute_process(COMMAND ${CLANG} ${FLAGS} -c ${SOURCE} -o ${OBJECT} RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${SOURCE} does not compile with ${FLAGS}")
endif()

function(contents out object)
  execute_process(COMMAND ${BPFTOOL} gen skeleton ${object} name like OUTPUT_VARIABLE skeleton
    RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "bpftool cannot read ${object}")
  endif()
  # The bytes of the object, at the end, differ.
  string(REGEX REPLACE "like__elf_bytes\\(size_t .*" "" skeleton "${skeleton}")
  string(REGEX MATCHALL "struct bpf_program \\*on_[a-z_]+" programs "${skeleton}")
  if(NOT programs)
    message(FATAL_ERROR "${object} has no programs")
  endif()
  list(LENGTH programs count)
  message(STATUS "${object}: ${count} programs")
  set(${out} "${skeleton}" PARENT_SCOPE)
endfunction()

contents(built ${OBJECT})
contents(like ${LIKE})
if(NOT built STREQUAL like)
  message(FATAL_ERROR "${OBJECT} has not the programs, maps and variables of ${LIKE}")
endif()

execute_process(COMMAND ${BPFTOOL} btf dump file ${OBJECT} OUTPUT_VARIABLE types RESULT_VARIABLE failed)
string(REGEX MATCHALL "'max_entries' [^\n]*" sized "${types}")
if(failed OR NOT sized)
  message(FATAL_ERROR "bpftool finds no sized maps in ${OBJECT}")
endif()
string(REGEX MATCHALL "'max_entries' [^\n]*\n[ \t]*'map_flags'" allocated "${types}")
list(LENGTH allocated count)
if(count)
  message(FATAL_ERROR "${OBJECT}: ${count} hashes are not preallocated")
endif()
