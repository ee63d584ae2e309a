# giltop_embed(TARGET NAME FILE): gives TARGET a header NAME.embed.h that holds FILE as bytes, so
# that one binary is all there is to install. FILE is of the source tree, or of the build's own.
function(giltop_embed target name file)
  set(out ${PROJECT_BINARY_DIR}/embed)
  file(MAKE_DIRECTORY ${out})
  get_filename_component(input ${file} ABSOLUTE BASE_DIR ${PROJECT_SOURCE_DIR})
  add_custom_command(OUTPUT ${out}/${name}.embed.h
    COMMAND ${CMAKE_COMMAND} -DINPUT=${input}
      -DOUTPUT=${out}/${name}.embed.h -DNAME=${name} -P ${PROJECT_SOURCE_DIR}/cmake/embed_file.cmake
    DEPENDS ${input} ${PROJECT_SOURCE_DIR}/cmake/embed_file.cmake
    COMMENT "Embedding ${file}" VERBATIM)
  add_custom_target(${target}_files DEPENDS ${out}/${name}.embed.h)
  add_library(${target} INTERFACE)
  target_include_directories(${target} INTERFACE ${out})
  add_dependencies(${target} ${target}_files)
endfunction()
