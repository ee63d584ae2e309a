#include "cli/commands.h"

int main(int argc, char** argv) { return giltop::run(argc, argv); }
