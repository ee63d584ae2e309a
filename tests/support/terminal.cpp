#include "support/terminal.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

namespace giltop::testing {
namespace {

constexpr const char* kPrompt = "ready$";

}  // namespace

bool Terminal::available() { return run({"tmux", "-V"}).status == 0; }

Terminal::Terminal(unsigned columns, unsigned rows, const std::string& term,
                   const std::string& environment) {
  write_file(directory_.path("conf"), "set -g status off\nset -g default-terminal " + term +
                                          "\nset -sg escape-time 0\nset -g history-limit 100\n");
  // A shell with jobs, and nothing of the user's.
  const Ran started =
      tmux({"-f", directory_.path("conf"), "new-session", "-d", "-x", std::to_string(columns), "-y",
            std::to_string(rows),
            "exec env -u NO_COLOR -u LC_ALL -u LC_CTYPE -u LANG TERM=" + term + " " + environment +
                " PS1='" + kPrompt + " ' bash --noprofile --norc -i"});
  up_ = started.status == 0;
  EXPECT_TRUE(up_) << "tmux does not start: " << started.err;
  resize(columns, rows);
  wait_for(kPrompt);
}

Terminal::~Terminal() { tmux({"kill-server"}); }

Ran Terminal::tmux(std::vector<std::string> arguments) const {
  std::vector<std::string> command = {"tmux", "-S", directory_.path("socket")};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run(command, std::chrono::seconds(30));
}

void Terminal::type_line(const std::string& line) {
  tmux({"send-keys", "-l", line});
  press({"Enter"});
}

std::string Terminal::ask(const std::string& line) {
  const std::string answer = directory_.path("answer" + std::to_string(asked_++));
  type_line(line + " >" + answer + ".part 2>&1; mv " + answer + ".part " + answer);
  wait_until([&] { return access(answer.c_str(), F_OK) == 0; });
  return read_file(answer);
}

void Terminal::press(const std::vector<std::string>& keys) {
  std::vector<std::string> arguments = {"send-keys"};
  arguments.insert(arguments.end(), keys.begin(), keys.end());
  tmux(arguments);
}

void Terminal::send_bytes(const std::string& bytes) {
  std::vector<std::string> arguments = {"send-keys", "-H"};
  for (const char c : bytes) {
    char hex[3];
    std::snprintf(hex, sizeof(hex), "%02x", static_cast<unsigned char>(c));
    arguments.emplace_back(hex);
  }
  tmux(arguments);
}

void Terminal::resize(unsigned columns, unsigned rows) {
  tmux({"resize-window", "-x", std::to_string(columns), "-y", std::to_string(rows)});
}

pid_t Terminal::child() const {
  const std::string shell = format("#{pane_pid}");
  return std::atoi(read_file("/proc/" + shell + "/task/" + shell + "/children").c_str());
}

std::string Terminal::screen(bool colours) const {
  return tmux(colours ? std::vector<std::string>{"capture-pane", "-p", "-e"}
                      : std::vector<std::string>{"capture-pane", "-p"})
      .out;
}

std::string Terminal::format(const std::string& format) const {
  std::string out = tmux({"display-message", "-p", format}).out;
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool Terminal::wait_until(const std::function<bool()>& condition,
                          std::chrono::seconds deadline) const {
  if (!up_) return false;
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // tmux tells of no change
  }
  return true;
}

bool Terminal::wait_for(const std::string& text, std::chrono::seconds deadline) const {
  return wait_until([&] { return screen().find(text) != std::string::npos; }, deadline);
}

}  // namespace giltop::testing
