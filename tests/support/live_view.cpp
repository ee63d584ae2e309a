#include "support/live_view.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>

namespace giltop::testing {
namespace {

constexpr const char* kShown = "F10 Quit";

std::u32string wide(const std::string& text) { return {text.begin(), text.end()}; }
std::string narrow(const std::u32string& text) { return {text.begin(), text.end()}; }

}  // namespace

Picture::Picture(const std::string& screen) {
  std::istringstream in(screen);
  for (std::string line; std::getline(in, line);) {
    std::u32string& row = rows_.emplace_back();
    for (size_t i = 0; i < line.size();) {
      const auto byte = static_cast<unsigned char>(line[i]);
      const size_t length = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
      row += byte < 0x80 ? static_cast<char32_t>(byte) : U'?';
      i += length;
    }
  }
}

std::optional<size_t> Picture::heads() const {
  for (size_t r = 0; r < rows_.size(); r++)
    if (rows_[r].find(U"NAME") != std::u32string::npos &&
        rows_[r].find(U"WAIT%") != std::u32string::npos)
      return r;
  return std::nullopt;
}

std::optional<std::string> Picture::under(const std::string& head, int id) const {
  const auto h = heads();
  const size_t at = h ? rows_[*h].find(wide(head)) : std::u32string::npos;
  if (at == std::u32string::npos) return std::nullopt;
  const size_t end = at + head.size();
  const std::vector<int> all = ids();
  const auto found = std::find(all.begin(), all.end(), id);
  if (found == all.end()) return std::nullopt;
  const std::u32string& row = rows_[*h + 1 + static_cast<size_t>(found - all.begin())];
  if (row.size() < end) return "";
  const size_t begin = row.rfind(U' ', end - 1);
  return narrow(row.substr(begin + 1, end - begin - 1));
}

double Picture::number_under(const std::string& head, int id) const {
  const auto text = under(head, id);
  return text && !text->empty() ? std::atof(text->c_str()) : -1;
}

std::vector<int> Picture::ids() const {
  std::vector<int> found;
  const auto h = heads();
  for (size_t r = h ? *h + 1 : rows_.size(); r + 1 < rows_.size(); r++)
    found.push_back(std::atoi(narrow(rows_[r]).c_str()));
  while (!found.empty() && found.back() == 0) found.pop_back();
  return found;
}

int Picture::first() const {
  const std::vector<int> all = ids();
  return all.empty() ? 0 : all.front();
}

std::optional<std::pair<unsigned, unsigned>> Picture::find(const std::string& text,
                                                           size_t from_row) const {
  for (size_t r = from_row; r < rows_.size(); r++)
    if (const size_t at = rows_[r].find(wide(text)); at != std::u32string::npos)
      return std::pair(static_cast<unsigned>(at), static_cast<unsigned>(r));
  return std::nullopt;
}

std::vector<int> threads_of(int pid) {
  std::vector<int> tids;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error))
    tids.push_back(std::stoi(entry.path().filename()));
  std::sort(tids.begin(), tids.end());
  return tids;
}

void LiveView::SetUp() {
  Live::SetUp();
  if (IsSkipped() || HasFatalFailure()) return;
  if (!Terminal::available()) {
    if (std::getenv("GILTOP_REQUIRE_LIVE")) FAIL() << "tmux is not installed";
    GTEST_SKIP() << "tmux is not installed";
  }
}

std::unique_ptr<Program> LiveView::turns() {
  auto program = std::make_unique<Program>(
      std::vector<std::string>{python(), workload(), "setswitch", "--scale", "60", "--started"});
  EXPECT_TRUE(program->wait_for("started"));
  return program;
}

std::unique_ptr<Program> LiveView::sleeper() {
  const std::string file = directory_.path("sleeper.py");
  write_file(file,
             "import ctypes, os, threading\n"
             "library = ctypes.PyDLL(None)\n"
             "def compute():\n"
             "    while True: sum(range(1000))\n"
             "def sleep():\n"
             "    os.write(1, b'sleeps %d\\n' % library.gettid())\n"
             "    library.sleep(60)\n"
             "threading.Thread(target=compute, daemon=True).start()\n"
             "threading.Thread(target=sleep, daemon=True).start()\n"
             "threading.Event().wait()\n");
  auto program = std::make_unique<Program>(std::vector<std::string>{python(), file});
  EXPECT_TRUE(program->wait_for("sleeps"));
  return program;
}

std::string LiveView::start(Terminal& terminal, const std::string& options) {
  terminal.ask("clear");
  const std::string modes = terminal.ask("stty -g");
  terminal.type_line(std::string(GILTOP_BINARY) + " " + options);
  EXPECT_TRUE(terminal.wait_for(kShown)) << terminal.screen();
  return modes;
}

void LiveView::expect_given_back(Terminal& terminal, const std::string& modes) {
  EXPECT_TRUE(terminal.wait_until([&] { return terminal.format("#{alternate_on}") == "0"; }))
      << terminal.screen();
  EXPECT_EQ(terminal.ask("stty -g"), modes);
  EXPECT_EQ(terminal.format("#{cursor_flag} #{mouse_any_flag}"), "1 0");
}

}  // namespace giltop::testing
