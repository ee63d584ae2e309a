# giltop_npm_packages(SOURCES DIR): DIR/packages.stamp, when DIR/node_modules has what
# SOURCES/package-lock.json names.
function(giltop_npm_packages sources dir)
  add_custom_command(OUTPUT ${dir}/packages.stamp
    COMMAND ${CMAKE_COMMAND} -DNPM=${NPM} -DSOURCES=${sources} -DDIR=${dir}
      -P ${PROJECT_SOURCE_DIR}/cmake/npm_packages.cmake
    DEPENDS ${sources}/package.json ${sources}/package-lock.json ${sources}/.npmrc
      ${PROJECT_SOURCE_DIR}/cmake/npm_packages.cmake
    COMMENT "Fetching npm packages for ${dir}" VERBATIM)
endfunction()

# giltop_page(OUT): builds the HTML report's page, but for its data, into file OUT.
function(giltop_page out)
  find_program(NODE node)
  find_program(NPM npm)
  if(NOT NODE OR NOT NPM)
    message(FATAL_ERROR "The HTML report is built by node and npm, which are not here: run tools/install-deps")
  endif()
  set(sources ${PROJECT_SOURCE_DIR}/src/sink/page)
  set(dir ${PROJECT_BINARY_DIR}/page)
  file(GLOB files CONFIGURE_DEPENDS ${sources}/*.js ${sources}/*.css ${sources}/*.html)
  giltop_npm_packages(${sources} ${dir})
  add_custom_command(OUTPUT ${out}
    COMMAND ${NODE} ${sources}/build.mjs ${sources} ${dir}/node_modules ${out}
    DEPENDS ${dir}/packages.stamp ${files} ${sources}/build.mjs
    COMMENT "Building the page" VERBATIM)
endfunction()
