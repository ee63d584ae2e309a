# Compiles SOURCE with CLANG and FLAGS to OBJECT, and compares what libbpf reads of it (bpftool's
# skeleton: programs, maps, variables) with the object LIKE. What has a size (all but task storage) is
# preallocated: Linux before 6.1 refuses other hashes to programs of perf events, and warns of them in
# uprobes.
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
string(REGEX REPLACE "\\[([0-9]+)\\]" "#\\1" types "${types}")
string(REGEX MATCHALL "STRUCT[^#]*'max_entries'[^#]*" sized "${types}")
if(failed OR NOT sized)
  message(FATAL_ERROR "bpftool finds no sized maps in ${OBJECT}")
endif()
foreach(map IN LISTS sized)
  if(NOT map MATCHES "'map_flags' type_id=([0-9]+)")
    continue()
  endif()
  # libbpf's __uint(): a pointer to an array of so many.
  foreach(next "PTR [^\n]*type_id" "ARRAY [^\n]*nr_elems")
    if(NOT types MATCHES "#${CMAKE_MATCH_1} ${next}=([0-9]+)")
      message(FATAL_ERROR "cannot read the flags of a map in ${OBJECT}")
    endif()
  endforeach()
  math(EXPR not_preallocated "${CMAKE_MATCH_1} & 1") # BPF_F_NO_PREALLOC
  if(not_preallocated)
    message(FATAL_ERROR "${OBJECT}: a map is not preallocated: ${map}")
  endif()
endforeach()
