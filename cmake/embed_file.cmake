# Writes OUTPUT: `inline constexpr unsigned char kNAME[]` with the bytes of INPUT.
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUTPUT} "#pragma once\nnamespace giltop::embedded {\n"
  "inline constexpr unsigned char ${NAME}[] = {${bytes}};\n}\n")
