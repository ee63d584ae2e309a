// giltop open: what it serves to whom, and that it ends. One test: there is one port.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/fd.h"
#include "support/live.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using testing::Program;
using testing::Ran;
using ::testing::StartsWith;

constexpr uint16_t kPort = 9001;
const std::string kOrigin = "Origin: https://ui.perfetto.dev\r\n";
const std::string kHost = "Host: 127.0.0.1:9001\r\n";

sockaddr_in address() {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(kPort);
  out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return out;
}

// All that comes until the connection closes; empty: nobody listens.
std::string ask(const std::string& request_line, const std::string& headers) {
  const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in to = address();
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) return {};
  const std::string request =
      request_line + " HTTP/1.1\r\n" + headers + "Connection: close\r\n\r\n";
  EXPECT_EQ(write(fd.get(), request.data(), request.size()), ssize_t(request.size()));
  std::string answer;
  char block[65536];
  for (ssize_t got = 0; (got = read(fd.get(), block, sizeof(block))) > 0;)
    answer.append(block, static_cast<size_t>(got));
  return answer;
}

// The port of a network that nobody else is on, for the calling thread and what it starts; where
// one may not have that, the host's. Back on the host's at the end.
class OwnNetwork {
 public:
  OwnNetwork() : host_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    if (!host_ || unshare(CLONE_NEWNET) != 0) return;
    own_ = true;
    const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq loopback{};
    std::strcpy(loopback.ifr_name, "lo");
    loopback.ifr_flags = IFF_UP;
    EXPECT_EQ(ioctl(fd.get(), SIOCSIFFLAGS, &loopback), 0);
  }
  ~OwnNetwork() {
    if (!own_) return;
    EXPECT_EQ(setns(host_.get(), CLONE_NEWNET), 0);
  }

 private:
  const Fd host_;
  bool own_ = false;
};

// Ours, but not listened on. Another suite's giltop may have it for a moment. Empty: who has it
// keeps it.
Fd take_port() {
  const sockaddr_in mine = address();
  for (int i = 0; i < 100; i++) {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int yes = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&mine), sizeof(mine)) == 0) return fd;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return {};
}

// Of the file, in what giltop says.
std::string path_of(const std::string& said) {
  const std::string before = "Open https://ui.perfetto.dev/#!/?url=http://127.0.0.1:9001";
  const size_t at = said.find(before);
  if (at == std::string::npos) return {};
  const size_t begin = at + before.size();
  return said.substr(begin, said.find('\n', begin) - begin);
}

TEST(Open, ServesOneFileOnceToPerfettosPage) {
  const OwnNetwork network;
  const testing::TemporaryDirectory directory;
  std::string bytes(3'000'000, '\0');
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<char>(i * 7 + i / 256);
  const std::string file = directory.path("a #1? 100%.pftrace");
  testing::write_file(file, bytes);

  {
    const Fd fd = take_port();
    if (!fd && std::getenv("GILTOP_REQUIRE_LIVE")) FAIL() << "another program has port 9001";
    if (!fd) GTEST_SKIP() << "another program has port 9001";
    ASSERT_EQ(listen(fd.get(), 1), 0);
    const Ran taken = testing::run({GILTOP_BINARY, "open", file});
    EXPECT_EQ(taken.status, 1);
    EXPECT_THAT(taken.err, StartsWith("giltop: port 9001 of 127.0.0.1 is taken"));
  }
  const Ran none = testing::run({GILTOP_BINARY, "open", directory.path("none")});
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr("No such file"));

  Program open({GILTOP_BINARY, "open", file});
  ASSERT_TRUE(open.wait_for("/recording.pftrace\n")) << open.err();
  const std::string path = path_of(open.out());
  ASSERT_THAT(path, MatchesRegex("/[0-9a-f]{32}/recording.pftrace")) << open.out();
  const std::string get = "GET " + path;
  EXPECT_THAT(ask("GET /etc/passwd", kHost + kOrigin), HasSubstr(" 404 "));
  EXPECT_THAT(ask("GET /recording.pftrace", kHost + kOrigin), HasSubstr(" 404 "));
  const std::string guessed = "/" + std::string(32, '0') + "/recording.pftrace";
  EXPECT_THAT(ask("GET " + guessed, kHost + kOrigin), HasSubstr(" 404 "));
  EXPECT_THAT(ask("GET /.." + path, kHost + kOrigin), HasSubstr(" 404 "));
  const std::string other = "Origin: https://example.org\r\n";
  EXPECT_THAT(ask(get, kHost + other), AllOf(HasSubstr(" 403 "), Not(HasSubstr("Allow-Origin"))));
  EXPECT_THAT(ask(get, "Host: example.org:9001\r\n"), HasSubstr(" 403 "));
  for (const char* const site : {"cross-site", "same-site", "same-origin"})
    EXPECT_THAT(ask(get, kHost + "Sec-Fetch-Site: " + site + "\r\n"), HasSubstr(" 403 ")) << site;
  EXPECT_THAT(ask(get, kHost + "X: " + std::string(20'000, 'x') + "\r\n"), Not(HasSubstr(" 200 ")));
  EXPECT_THAT(ask("POST " + path, kHost + kOrigin + "Content-Length: 0\r\n"),
              Not(HasSubstr(" 200 ")));
  EXPECT_THAT(ask("OPTIONS " + path, kHost + kOrigin),
              AllOf(HasSubstr(" 204 "),
                    HasSubstr("Access-Control-Allow-Origin: https://ui.perfetto.dev\r\n")));
  const std::string whole = ask(get, kHost + kOrigin + "Sec-Fetch-Site: cross-site\r\n");
  EXPECT_THAT(whole.substr(0, 200),
              AllOf(HasSubstr(" 200 "),
                    HasSubstr("Access-Control-Allow-Origin: https://ui.perfetto.dev\r\n")));
  EXPECT_TRUE(whole.size() > bytes.size() &&
              whole.compare(whole.size() - bytes.size(), bytes.size(), bytes) == 0)
      << whole.size() << " bytes";
  EXPECT_EQ(open.finish().status, 0) << "it was fetched";

  Program stopped({GILTOP_BINARY, "open", file});
  ASSERT_TRUE(stopped.wait_for("/recording.pftrace\n")) << stopped.err();
  EXPECT_NE(path_of(stopped.out()), path) << "each time another";
  stopped.signal(SIGINT);
  const Ran ended = stopped.finish();
  EXPECT_EQ(ended.status, 1);
  EXPECT_THAT(ended.err, HasSubstr("nobody fetched"));
}

}  // namespace
}  // namespace giltop
