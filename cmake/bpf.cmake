# giltop_bpf_skeleton(TARGET SOURCE): compiles SOURCE for the kernel and gives TARGET its skeleton
# header, NAME.skel.h for NAME.bpf.c, with the object inside.
find_program(CLANG NAMES clang clang-14 clang-15 clang-16 clang-17 clang-18 clang-19 REQUIRED)
find_program(LLVM_STRIP NAMES llvm-strip llvm-strip-14 llvm-strip-15 llvm-strip-16 llvm-strip-17
  llvm-strip-18 llvm-strip-19 REQUIRED)
find_program(BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
  set(GILTOP_BPF_ARCH x86)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(GILTOP_BPF_ARCH arm64)
else()
  message(FATAL_ERROR "giltop does not know ${CMAKE_SYSTEM_PROCESSOR}")
endif()

# The kernel's own headers are under a directory that clang does not search for the BPF target.
execute_process(COMMAND ${CMAKE_C_COMPILER} -print-multiarch
  OUTPUT_VARIABLE GILTOP_MULTIARCH OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
# What to compile with for the kernel of an architecture (x86, arm64): this one's, or another to see
# that it builds.
function(giltop_bpf_flags out arch)
  set(flags -g -O2 -mcpu=v3 -target bpf -D__TARGET_ARCH_${arch} -Wall -Werror
    -I${PROJECT_SOURCE_DIR}/vmlinux/${arch} -I${PROJECT_SOURCE_DIR}/include
    -I${PROJECT_SOURCE_DIR}/bpf)
  if(GILTOP_MULTIARCH)
    list(APPEND flags -idirafter /usr/include/${GILTOP_MULTIARCH})
  endif()
  set(${out} ${flags} PARENT_SCOPE)
endfunction()
giltop_bpf_flags(GILTOP_BPF_FLAGS ${GILTOP_BPF_ARCH})

function(giltop_bpf_skeleton target source)
  get_filename_component(name ${source} NAME)
  string(REPLACE ".bpf.c" "" name ${name})
  set(out ${PROJECT_BINARY_DIR}/bpf)
  file(MAKE_DIRECTORY ${out})
  file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bpf/*.h
    ${PROJECT_SOURCE_DIR}/vmlinux/${GILTOP_BPF_ARCH}/*.h ${PROJECT_SOURCE_DIR}/include/giltop/*.h)
  add_custom_command(OUTPUT ${out}/${name}.bpf.o
    COMMAND ${CLANG} ${GILTOP_BPF_FLAGS} -c ${PROJECT_SOURCE_DIR}/${source} -o ${out}/${name}.bpf.o
    COMMAND ${LLVM_STRIP} -g ${out}/${name}.bpf.o
    DEPENDS ${PROJECT_SOURCE_DIR}/${source} ${headers}
    COMMENT "Compiling ${source}" VERBATIM)
  add_custom_command(OUTPUT ${out}/${name}.skel.h
    COMMAND sh -c "\"$1\" gen skeleton \"$2\" name \"$3\" > \"$4\"" sh
      ${BPFTOOL} ${out}/${name}.bpf.o ${name}_bpf ${out}/${name}.skel.h
    DEPENDS ${out}/${name}.bpf.o COMMENT "Generating ${name}.skel.h" VERBATIM)
  add_custom_target(${target}_files DEPENDS ${out}/${name}.skel.h)
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE ${out})
  add_dependencies(${target} ${target}_files)
endfunction()
