// The live view in a terminal: what its screen says, and what the tests that drive it share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/terminal.h"

namespace giltop::testing {

// A screen, by column; each character is one wide here.
class Picture {
 public:
  explicit Picture(const std::string& screen);
  // What stands under a head, which is aligned to the right, in the row of this process or thread.
  std::optional<std::string> under(const std::string& head, int id) const;
  double number_under(const std::string& head, int id) const;
  // Of the table's rows on the screen, from the top; 0: it has none.
  std::vector<int> ids() const;
  int first() const;
  // The column and row where `text`, all ASCII, begins; the first from this row on.
  std::optional<std::pair<unsigned, unsigned>> find(const std::string& text,
                                                    size_t from_row = 0) const;
  // The row of the table's heads.
  std::optional<size_t> heads() const;

 private:
  std::vector<std::u32string> rows_;
};

std::vector<int> threads_of(int pid);  // in order

class LiveView : public Live {
 protected:
  void SetUp() override;

  // Two threads that compute, and one that sleeps, for a minute or till they are killed.
  std::unique_ptr<Program> turns();
  // A thread that sleeps with the GIL for a minute while another wants to compute.
  std::unique_ptr<Program> sleeper();

  // The terminal's modes before.
  static std::string start(Terminal& terminal, const std::string& options);
  static void expect_given_back(Terminal& terminal, const std::string& modes);
};

}  // namespace giltop::testing
