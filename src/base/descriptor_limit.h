// How many files this process may have open.
#pragma once

namespace giltop {

// To the most that it may ask for: a probe that serves one process is a descriptor. Once, at start.
void raise_descriptor_limit();
// What it was, for a program that is executed from here: select() fails beyond 1024.
void restore_descriptor_limit();

}  // namespace giltop
