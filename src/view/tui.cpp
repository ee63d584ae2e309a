#include "view/tui.h"

#include <curses.h>
#include <fcntl.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <term.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <string>

#include "base/fd.h"
#include "view/tui_text.h"

// Macros of term.h.
#undef columns
#undef hangup

namespace giltop {
namespace {

// What a crash needs to give the terminal back, with functions that signal handlers may call.
struct Rescue {
  std::atomic<bool> active = false;
  termios modes{};
  char bytes[256];  // leave the alternate screen, show the cursor, no mouse
  size_t length = 0;
};
Rescue g_rescue;
int g_signal_pipe = -1;  // its writing end; -1: there is no Tui

void rescue_terminal() {
  if (!g_rescue.active.exchange(false)) return;
  // What cannot be written then cannot be helped.
  [[maybe_unused]] const ssize_t written = write(STDOUT_FILENO, g_rescue.bytes, g_rescue.length);
  tcsetattr(STDIN_FILENO, TCSANOW, &g_rescue.modes);
}

void on_crash(int number) {
  rescue_terminal();
  signal(number, SIG_DFL);
  raise(number);  // when this handler has returned
}

void on_signal(int number) {
  const int before = errno;
  const char byte = static_cast<char>(number);
  // A full pipe has one already.
  [[maybe_unused]] const ssize_t written = write(g_signal_pipe, &byte, 1);
  errno = before;
}

int keep_byte(int c) {
  if (g_rescue.length < sizeof(g_rescue.bytes))
    g_rescue.bytes[g_rescue.length++] = static_cast<char>(c);
  return c;
}

// All that end a process by default, but those that the caller handles.
constexpr std::array<int, 18> kCrashes = {
    SIGSEGV,   SIGBUS,  SIGILL,  SIGFPE, SIGABRT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM,
    SIGVTALRM, SIGPROF, SIGPOLL, SIGSYS, SIGXCPU, SIGXFSZ, SIGTRAP, SIGPWR,  SIGSTKFLT,
};
constexpr std::array<int, 3> kSignals = {SIGWINCH, SIGTSTP, SIGCONT};

enum class Look { colours, few, plain };

struct Paint {
  short foreground = -1, background = -1;  // -1: the terminal's own
  attr_t attributes = A_NORMAL;
};

// Okabe and Ito's colours, as near as the 256 come: #009E73 #D55E00 #E69F00 #F0E442 #56B4E9.
constexpr std::array<Paint, kStyles> kColours = {{
    {},
    {244, -1, A_NORMAL},   // dim
    {-1, -1, A_BOLD},      // bold
    {255, 239, A_NORMAL},  // header
    {16, 110, A_NORMAL},   // selected
    {220, -1, A_BOLD},     // tagged
    {110, -1, A_BOLD},     // key
    {203, -1, A_BOLD},     // bad
    {36, -1, A_NORMAL},    // held_running
    {166, -1, A_NORMAL},   // held_off_cpu
    {178, -1, A_NORMAL},   // waiting
    {221, -1, A_NORMAL},   // runnable
    {74, -1, A_NORMAL},    // native
    {244, -1, A_NORMAL},   // asleep
}};
constexpr std::array<Paint, kStyles> kFew = {{
    {},
    {-1, -1, A_DIM},
    {-1, -1, A_BOLD},
    {-1, -1, A_REVERSE},
    {COLOR_BLACK, COLOR_CYAN, A_NORMAL},
    {COLOR_YELLOW, -1, A_BOLD},
    {COLOR_CYAN, -1, A_BOLD},
    {COLOR_RED, -1, A_BOLD},
    {COLOR_GREEN, -1, A_BOLD},
    {COLOR_RED, -1, A_REVERSE},
    {COLOR_YELLOW, -1, A_NORMAL},
    {COLOR_YELLOW, -1, A_BOLD},
    {COLOR_CYAN, -1, A_NORMAL},
    {-1, -1, A_DIM},
}};
constexpr std::array<Paint, kStyles> kPlain = {{
    {},
    {-1, -1, A_DIM},
    {-1, -1, A_BOLD},
    {-1, -1, A_BOLD | A_UNDERLINE},
    {-1, -1, A_REVERSE},
    {-1, -1, A_BOLD},
    {-1, -1, A_BOLD},
    {-1, -1, A_BOLD},
    {},
    {-1, -1, A_BOLD},
    {},
    {},
    {},
    {-1, -1, A_DIM},
}};

// One of the 256 colours for terminals that take red, green and blue instead.
int direct_colour(short colour) {
  if (colour < 16) return colour;
  if (colour >= 232) return (8 + 10 * (colour - 232)) * 0x010101;
  const auto level = [&](int step) {
    const int i = (colour - 16) / step % 6;
    return i == 0 ? 0 : 55 + 40 * i;
  };
  return level(36) << 16 | level(6) << 8 | level(1);
}

bool set(const char* name) {
  const char* const value = std::getenv(name);
  return value && *value;
}

Status check_terminal() {
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
    return Error("the live view needs a terminal; --batch writes text instead");
  if (!set("TERM"))
    return Error(
        "the live view needs to know the terminal's type: TERM is not set (--batch writes "
        "text instead)");
  const std::string type = std::getenv("TERM");
  int found = 0;
  if (setupterm(type.c_str(), STDOUT_FILENO, &found) != OK)
    return Error(found == -1
                     ? "no terminfo database is installed here (--batch writes text instead)"
                     : "the terminal's type '" + type +
                           "' (TERM) is not known here (--batch writes text instead)");
  const char* const place = tigetstr("cup");
  const bool places = place && place != reinterpret_cast<const char*>(-1);
  del_curterm(cur_term);
  if (!places)
    return Error("a terminal of the type '" + type +
                 "' (TERM) cannot place its cursor; --batch writes text instead");
  return ok();
}

}  // namespace

struct Tui::Impl {
  SCREEN* terminal = nullptr;
  Look look = Look::plain;
  bool utf8 = false;
  std::optional<Screen> painted;
  Fd events, signals;  // epoll of stdin and of `signals`
  Fd signals_in;
  std::array<struct sigaction, kCrashes.size()> crashes_before{};
  std::array<struct sigaction, kSignals.size()> signals_before{};
  std::array<char, 16384> crash_stack;
  stack_t stack_before{};

  Status take_signals();
  void give_signals_back();
  void stop();
  void take_size();
  void go_on();
  std::optional<Input> handle_signals();
  void put(unsigned column, unsigned row, const Cell& cell);
};

Status Tui::Impl::take_signals() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return system_error("make a pipe", errno);
  signals = Fd(ends[0]);
  signals_in = Fd(ends[1]);
  events = Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!events) return system_error("make an epoll", errno);
  for (const int fd : {STDIN_FILENO, signals.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(events.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      return system_error("wait for the terminal", errno);
  }
  g_signal_pipe = signals_in.get();

  // A stack overflow leaves none to handle it on.
  stack_t stack{};
  stack.ss_sp = crash_stack.data();
  stack.ss_size = crash_stack.size();
  sigaltstack(&stack, &stack_before);
  struct sigaction action {};
  sigfillset(&action.sa_mask);
  action.sa_handler = on_crash;
  action.sa_flags = SA_ONSTACK;
  for (size_t i = 0; i < kCrashes.size(); i++) sigaction(kCrashes[i], &action, &crashes_before[i]);
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < kSignals.size(); i++) sigaction(kSignals[i], &action, &signals_before[i]);
  return ok();
}

void Tui::Impl::give_signals_back() {
  for (size_t i = 0; i < kCrashes.size(); i++) sigaction(kCrashes[i], &crashes_before[i], nullptr);
  for (size_t i = 0; i < kSignals.size(); i++) sigaction(kSignals[i], &signals_before[i], nullptr);
  sigaltstack(&stack_before, nullptr);
  g_signal_pipe = -1;
}

Tui::Tui(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Tui>> Tui::make() {
  const bool said = set("LC_ALL") || set("LC_CTYPE") || set("LANG");
  // One that is not installed here, as over ssh, says at least which characters are meant.
  if (!setlocale(LC_CTYPE, said ? "" : "C.UTF-8")) setlocale(LC_CTYPE, "C.UTF-8");
  if (const Status usable = check_terminal(); !usable) return usable.error();

  auto impl = std::make_unique<Impl>();
  impl->utf8 = std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  if (tcgetattr(STDIN_FILENO, &g_rescue.modes) != 0)
    return system_error("read the terminal's modes", errno);
  set_escdelay(25);
  impl->terminal = newterm(nullptr, stdout, stdin);
  if (!impl->terminal) return Error("cannot use this terminal; --batch writes text instead");
  cbreak();
  noecho();
  nonl();
  intrflush(stdscr, FALSE);
  keypad(stdscr, TRUE);
  nodelay(stdscr, TRUE);
  curs_set(0);
  mouseinterval(0);  // a press is a click
  mousemask(BUTTON1_PRESSED | BUTTON4_PRESSED | BUTTON5_PRESSED, nullptr);

  if (!set("NO_COLOR") && has_colors() && start_color() == OK && COLORS >= 8) {
    use_default_colors();
    impl->look =
        COLORS >= 256 && COLOR_PAIRS > static_cast<int>(kStyles) ? Look::colours : Look::few;
    const auto& paints = impl->look == Look::colours ? kColours : kFew;
    const bool direct = COLORS > 256;
    for (size_t i = 0; i < kStyles; i++)
      init_extended_pair(static_cast<int>(i + 1),
                         direct ? direct_colour(paints[i].foreground) : paints[i].foreground,
                         direct ? direct_colour(paints[i].background) : paints[i].background);
  }

  g_rescue.length = 0;
  const auto keep = [](const char* capability) {
    const char* const bytes = tigetstr(capability);
    if (bytes && bytes != reinterpret_cast<const char*>(-1)) tputs(bytes, 1, keep_byte);
  };
  keep("sgr0");
  if (const char* const mouse = tigetstr("XM");
      mouse && mouse != reinterpret_cast<const char*>(-1)) {
    tputs(tiparm(mouse, 0), 1, keep_byte);
  } else if (const char* const reports = tigetstr("kmous");
             reports && reports != reinterpret_cast<const char*>(-1)) {
    for (const char c : std::string("\x1b[?1000l")) keep_byte(c);  // as ncurses has it
  }
  keep("rmkx");
  keep("cnorm");
  keep("rmcup");

  auto tui = std::unique_ptr<Tui>(new Tui(std::move(impl)));  // from here on it gives all back
  static const int at_exit = std::atexit(rescue_terminal);
  static_cast<void>(at_exit);
  g_rescue.active = true;
  if (Status taken = tui->impl_->take_signals(); !taken)
    return std::move(taken).error().in("set the terminal up");
  return tui;
}

Tui::~Tui() {
  if (!impl_ || !impl_->terminal) return;
  endwin();
  g_rescue.active = false;
  impl_->give_signals_back();
  delscreen(impl_->terminal);
}

void Tui::give_back() { rescue_terminal(); }

int Tui::input_fd() const { return impl_->events.get(); }

std::pair<unsigned, unsigned> Tui::size() const {
  return {static_cast<unsigned>(getmaxx(stdscr)), static_cast<unsigned>(getmaxy(stdscr))};
}

bool Tui::letters() const { return impl_->look == Look::few || !impl_->utf8; }

void Tui::Impl::stop() {
  endwin();
  g_rescue.active = false;
  struct sigaction ours {
  }, standard{};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGTSTP, &standard, &ours);
  sigset_t only, before;
  sigemptyset(&only);
  sigaddset(&only, SIGTSTP);
  pthread_sigmask(SIG_UNBLOCK, &only, &before);
  raise(SIGTSTP);  // returns when the process goes on
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  sigaction(SIGTSTP, &ours, nullptr);
  g_rescue.active = true;
}

void Tui::Impl::take_size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0)
    resizeterm(size.ws_row, size.ws_col);
  painted.reset();
}

void Tui::Impl::go_on() {
  // Whoever had the terminal meanwhile may have changed its modes. Where it is given back already,
  // to do so again would take the cursor to where it was before.
  if (!isendwin()) endwin();
  clearok(curscr, TRUE);
  wrefresh(stdscr);
  painted.reset();
}

std::optional<Input> Tui::Impl::handle_signals() {
  bool any = false, stops = false, goes_on = false;
  char numbers[64];
  for (ssize_t n; (n = ::read(signals.get(), numbers, sizeof(numbers))) > 0;) {
    any = true;
    for (ssize_t i = 0; i < n; i++) {
      stops = stops || numbers[i] == SIGTSTP;
      goes_on = goes_on || numbers[i] == SIGCONT;
    }
  }
  if (!any) return std::nullopt;
  if (stops) {
    stop();
    while (::read(signals.get(), numbers, sizeof(numbers)) > 0) {
    }
  }
  take_size();
  if (stops || goes_on) go_on();
  return Input{Input::Kind::resize};
}

std::optional<Input> Tui::read() {
  using Kind = Input::Kind;
  if (const auto input = impl_->handle_signals()) return input;
  for (;;) {
    wint_t c = 0;
    const int kind = wget_wch(stdscr, &c);
    if (kind == ERR) {
      pollfd terminal{STDIN_FILENO, POLLIN, 0};
      if (poll(&terminal, 1, 0) > 0 && (terminal.revents & (POLLHUP | POLLERR | POLLNVAL)))
        return Input{Kind::hangup};
      return std::nullopt;
    }
    if (kind != KEY_CODE_YES) {
      switch (c) {
        case '\r':
        case '\n':
          return Input{Kind::enter};
        case 27:
          return Input{Kind::escape};
        case 8:
        case 127:
          return Input{Kind::backspace};
        case 12:
          return Input{Kind::redraw};
        default:
          return Input{Kind::character, static_cast<uint32_t>(c)};
      }
    }
    switch (c) {
      case KEY_ENTER:
        return Input{Kind::enter};
      case KEY_BACKSPACE:
        return Input{Kind::backspace};
      case KEY_DC:
        return Input{Kind::del};
      case KEY_UP:
        return Input{Kind::up};
      case KEY_DOWN:
        return Input{Kind::down};
      case KEY_LEFT:
        return Input{Kind::left};
      case KEY_RIGHT:
        return Input{Kind::right};
      case KEY_PPAGE:
        return Input{Kind::page_up};
      case KEY_NPAGE:
        return Input{Kind::page_down};
      case KEY_HOME:
        return Input{Kind::home};
      case KEY_END:
        return Input{Kind::end};
      case KEY_RESIZE:
        return Input{Kind::resize};
      case KEY_MOUSE: {
        MEVENT event;
        if (getmouse(&event) != OK) continue;
        Input input;
        input.column = static_cast<unsigned>(std::max(event.x, 0));
        input.row = static_cast<unsigned>(std::max(event.y, 0));
        if (event.bstate & BUTTON4_PRESSED) {
          input.kind = Kind::wheel_up;
        } else if (event.bstate & BUTTON5_PRESSED) {
          input.kind = Kind::wheel_down;
        } else if (event.bstate & BUTTON1_PRESSED) {
          input.kind = Kind::click;
        } else {
          continue;
        }
        return input;
      }
      default:
        if (c > KEY_F0 && c <= KEY_F(12))
          return Input{Kind::function, static_cast<uint32_t>(c - KEY_F0)};
        continue;  // a key that is nothing to us
    }
  }
}

void Tui::Impl::put(unsigned column, unsigned row, const Cell& cell) {
  const auto style = static_cast<size_t>(cell.style);
  const auto& paints = look == Look::colours ? kColours : look == Look::few ? kFew : kPlain;
  const auto pair = static_cast<short>(look == Look::plain ? 0 : style + 1);
  const auto put_wide = [&](unsigned at, const std::wstring& text) {
    cchar_t shown;
    if (setcchar(&shown, text.c_str(), paints[style].attributes, pair, nullptr) == OK)
      mvadd_wchnstr(static_cast<int>(row), static_cast<int>(at), &shown, 1);
  };
  std::wstring text = wide_of(cell.text);
  if (!utf8) text = std::wstring(1, static_cast<wchar_t>(ascii_of(text[0])));
  // The C library, which ncurses goes by, may not know the character, or see its width otherwise.
  bool as_meant = wcwidth(text[0]) == cell.width;
  for (size_t i = 1; i < text.size(); i++) as_meant = as_meant && wcwidth(text[i]) == 0;
  if (as_meant) {
    put_wide(column, text);
    return;
  }
  put_wide(column, L"?");
  if (cell.width == 2) put_wide(column + 1, L" ");
}

void Tui::paint(const Screen& screen) {
  const auto [columns, rows] = size();
  const std::optional<Screen>& last = impl_->painted;
  const bool all = !last || last->columns() != screen.columns() || last->rows() != screen.rows();
  if (all) werase(stdscr);
  for (unsigned row = 0; row < std::min(rows, screen.rows()); row++) {
    for (unsigned column = 0; column < std::min(columns, screen.columns()); column++) {
      const Cell& cell = screen.at(column, row);
      if (cell.width == 0 || (!all && last->at(column, row) == cell)) continue;
      if (cell.width == 2 && column + 1 >= columns) continue;
      impl_->put(column, row, cell);
    }
  }
  if (screen.cursor && screen.cursor->first < columns && screen.cursor->second < rows) {
    wmove(stdscr, static_cast<int>(screen.cursor->second), static_cast<int>(screen.cursor->first));
    curs_set(1);
  } else {
    curs_set(0);
  }
  wrefresh(stdscr);
  impl_->painted = screen;
}

void Tui::redraw() {
  clearok(curscr, TRUE);
  wrefresh(stdscr);
}

}  // namespace giltop
