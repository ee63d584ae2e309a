// The cells of the live view's screen: texts of unknown origin, wide and combining characters.
#include <gtest/gtest.h>

#include "view/screen.h"

namespace giltop {
namespace {

std::string text_of(const std::vector<Cell>& cells) {
  std::string out;
  for (const Cell& cell : cells) out += cell.text;
  return out;
}

TEST(LiveScreen, WideCharactersTakeTwoCells) {
  const std::vector<Cell> cells = cells_of("a日b");
  ASSERT_EQ(cells.size(), 4u);
  EXPECT_EQ(cells[1], (Cell{"日", 2, Style::normal}));
  EXPECT_EQ(cells[2], (Cell{"", 0, Style::normal}));
  EXPECT_EQ(cells[3].text, "b");
}

TEST(LiveScreen, CombiningCharactersStayWithTheirs) {
  const std::vector<Cell> cells = cells_of("e\u0301x");
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_EQ(cells[0].text, "e\u0301");
  EXPECT_EQ(cells_of("\u0301x").size(), 1u) << "one without a character is dropped";
  std::string many = "a";
  for (int i = 0; i < 1000; i++) many += "\u0301";
  ASSERT_EQ(cells_of(many).size(), 1u);
  EXPECT_LE(cells_of(many)[0].text.size(), 7u) << "no more than a terminal's cell takes";
  EXPECT_EQ(cells_of("日\u0301")[0].text, "日\u0301") << "it goes to the wide one's left half";
}

TEST(LiveScreen, WhatDrivesATerminalIsReplaced) {
  EXPECT_EQ(text_of(cells_of("\x1b[31mred\x1b]0;title\x07")), "?[31mred?]0;title?");
  EXPECT_EQ(text_of(cells_of("a\tb\nc\x7f")), "a?b?c?");
  EXPECT_EQ(text_of(cells_of("\u009b31m")), "?31m") << "a C1 control, as UTF-8";
  EXPECT_EQ(text_of(cells_of("\x9b"
                             "31m")),
            "?31m")
      << "and as a bare byte";
}

TEST(LiveScreen, BrokenUtf8IsReplaced) {
  EXPECT_EQ(text_of(cells_of("a\xff\xfe")), "a??");
  EXPECT_EQ(text_of(cells_of("\xe6\x97")), "?") << "cut short";
  EXPECT_EQ(text_of(cells_of("\xc0\x9b[31m")), "?[31m") << "an overlong escape";
  EXPECT_EQ(text_of(cells_of("\xed\xa0\x80")), "?") << "a surrogate";
  EXPECT_EQ(text_of(cells_of("\xf4\x90\x80\x80")), "?") << "beyond Unicode";
}

TEST(LiveScreen, WhatTerminalsDoNotAgreeAboutIsMadePlain) {
  EXPECT_EQ(text_of(cells_of("\u202eevil\u2066\u200b\u00ad\ufeff")), "evil") << "formats";
  EXPECT_EQ(text_of(cells_of("🇩🇪")), "DE") << "flags";
  EXPECT_EQ(text_of(cells_of("👍🏽")), "👍") << "skin tones";
  EXPECT_EQ(text_of(cells_of("👩‍👧")), "👩👧") << "joined ones";
  EXPECT_EQ(cells_of("❤️").size(), 1u) << "variations";
  EXPECT_EQ(text_of(cells_of("\ue000")), "?") << "private use";
  EXPECT_EQ(text_of(cells_of("a\u3000b")), "a  b") << "wide spaces";
}

TEST(LiveScreen, LongTextIsCutWithAnEllipsis) {
  Screen screen(10, 1);
  EXPECT_EQ(screen.put(2, 0, "abcdefghijkl", Style::normal, 5), 5u);
  EXPECT_EQ(screen.row_text(0), "  abcd…   ");
  EXPECT_EQ(shortened("日本語", 5), "日本…") << "no half of a wide character";
  EXPECT_EQ(shortened("日本語", 4), "日 …");
  EXPECT_EQ(shortened("日本語", 6), "日本語");
}

TEST(LiveScreen, NothingLeavesTheScreen) {
  Screen screen(4, 2);
  screen.put(3, 0, "日");
  screen.put(2, 1, "xyz");
  screen.put(9, 1, "far");
  screen.put(0, 9, "below");
  EXPECT_EQ(screen.row_text(0), "   …");
  EXPECT_EQ(screen.row_text(1), "  x…");
}

TEST(LiveScreen, HalvesOfWideCharactersDoNotStay) {
  Screen screen(6, 1);
  screen.put(0, 0, "日本語");
  screen.put(1, 0, "x");
  EXPECT_EQ(screen.row_text(0), " x本語");
  screen.put(4, 0, "y");
  EXPECT_EQ(screen.row_text(0), " x本y ");
  screen.put(1, 0, "界");
  EXPECT_EQ(screen.row_text(0), " 界 y ");
}

TEST(LiveScreen, PutRightEndsAtItsWidth) {
  Screen screen(8, 1);
  screen.put_right(1, 0, "日9", Style::bold, 6);
  EXPECT_EQ(screen.row_text(0), "    日9 ");
  screen.put_right(0, 0, "123456789", Style::bold, 8);
  EXPECT_EQ(screen.row_text(0), "1234567…");
}

TEST(LiveScreen, RestyleKeepsWhatShowsAState) {
  Screen screen(3, 1);
  screen.put(0, 0, "a");
  screen.put(1, 0, "█", Style::held_running);
  screen.restyle(0, 0, 3, Style::selected, true);
  EXPECT_EQ(screen.at(0, 0).style, Style::selected);
  EXPECT_EQ(screen.at(1, 0).style, Style::held_running);
  EXPECT_EQ(screen.at(2, 0).style, Style::selected);
}

}  // namespace
}  // namespace giltop
