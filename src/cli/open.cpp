// giltop open: hands a recording to ui.perfetto.dev, once.
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "base/fd.h"
#include "cli/commands.h"
#include "cli/output.h"

namespace giltop {
namespace {

// The page may fetch from nowhere else: its Content-Security-Policy names this port.
constexpr uint16_t kPort = 9001;
constexpr const char* kHost = "127.0.0.1";
constexpr const char* kPage = "https://ui.perfetto.dev";
constexpr ev_ssize_t kMostHeaderBytes = 16384;

template <auto Free>
struct FreeBy {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Loop = std::unique_ptr<event_base, FreeBy<event_base_free>>;
using Http = std::unique_ptr<evhttp, FreeBy<evhttp_free>>;
using Timer = std::unique_ptr<event, FreeBy<event_free>>;
using Buffer = std::unique_ptr<evbuffer, FreeBy<evbuffer_free>>;

struct File {
  Fd fd;
  uint64_t size;
};

Result<File> open_file(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!fd || fstat(fd.get(), &info) != 0) return system_error("cannot read " + path, errno);
  if (!S_ISREG(info.st_mode)) return Error("cannot read " + path + ": not a regular file");
  if (info.st_size == 0) return Error(path + " is empty: nothing was recorded");
  return File{std::move(fd), static_cast<uint64_t>(info.st_size)};
}

// What nobody can guess: any user of this host, and any page of a browser, can ask for the file.
Result<std::string> random_token() {
  std::array<uint8_t, 16> bytes;
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return system_error("cannot make a secret address", errno);
  std::string token;
  for (const uint8_t byte : bytes) token += fmt::format("{:02x}", byte);
  return token;
}

// Serves one file until it was fetched once, by who knows its address: a page of kPage, or who is
// no page at all. To nobody else; a page that reaches us by another name says so in Host.
class Server {
 public:
  static Result<Server> make(const std::string& path);
  // Until the file was fetched or a signal came. Whether it was.
  bool serve();
  std::string address() const;

 private:
  Server(Loop loop, Http http, std::string file, std::string token)
      : loop_(std::move(loop)),
        http_(std::move(http)),
        file_(std::move(file)),
        path_(fmt::format("/{}/recording.pftrace", token)) {}
  static void on_request(evhttp_request* request, void* server);
  static void on_sent(evhttp_request* request, void* server);
  static void on_tick(evutil_socket_t, short, void* server);
  bool is_allowed(evhttp_request* request) const;
  bool is_for_file(evhttp_request* request) const;
  void answer(evhttp_request* request);

  Loop loop_;
  Http http_;
  std::string file_;
  std::string path_;  // where it is served
  bool fetched_ = false;
};

Result<Server> Server::make(const std::string& path) {
  auto token = random_token();
  if (!token) return token.error();
  Loop loop(event_base_new());
  Http http(loop ? evhttp_new(loop.get()) : nullptr);
  if (!http) return Error("cannot serve: no memory");
  evhttp_set_max_headers_size(http.get(), kMostHeaderBytes);
  evhttp_set_allowed_methods(http.get(), EVHTTP_REQ_GET | EVHTTP_REQ_OPTIONS);
  if (!evhttp_bind_socket_with_handle(http.get(), kHost, kPort)) {
    if (errno != EADDRINUSE)
      return system_error(fmt::format("cannot listen on port {} of {}", kPort, kHost), errno);
    return Error(
        fmt::format("port {} of {} is taken, and {} fetches from no other: is another giltop "
                    "open, or trace_processor, at work?",
                    kPort, kHost, kPage));
  }
  return Server(std::move(loop), std::move(http), path, *std::move(token));
}

std::string Server::address() const {
  return fmt::format("{}/#!/?url=http://{}:{}{}", kPage, kHost, kPort, path_);
}

bool Server::serve() {
  evhttp_set_gencb(http_.get(), on_request, this);
  // A signal only sets a flag.
  const Timer timer(event_new(loop_.get(), -1, EV_PERSIST, on_tick, this));
  const timeval every{0, 50'000};
  if (timer) event_add(timer.get(), &every);
  event_base_dispatch(loop_.get());
  return fetched_;
}

void Server::on_tick(evutil_socket_t, short, void* server) {
  if (StopSignals::stop_requested())
    event_base_loopbreak(static_cast<Server*>(server)->loop_.get());
}

void Server::on_request(evhttp_request* request, void* server) {
  static_cast<Server*>(server)->answer(request);
}

void Server::on_sent(evhttp_request*, void* server) {
  auto* const self = static_cast<Server*>(server);
  self->fetched_ = true;
  event_base_loopbreak(self->loop_.get());
}

bool Server::is_allowed(evhttp_request* request) const {
  const evkeyvalq* const headers = evhttp_request_get_input_headers(request);
  const char* const origin = evhttp_find_header(headers, "Origin");
  const char* const host = evhttp_find_header(headers, "Host");
  if (!host || fmt::format("{}:{}", kHost, kPort) != host) return false;
  if (origin) return std::strcmp(origin, kPage) == 0;
  // A picture or a frame of a page comes without Origin. Who typed the address has "none".
  const char* const site = evhttp_find_header(headers, "Sec-Fetch-Site");
  return !site || std::strcmp(site, "none") == 0;
}

bool Server::is_for_file(evhttp_request* request) const {
  const evhttp_uri* const uri = evhttp_request_get_evhttp_uri(request);
  const char* const path = uri ? evhttp_uri_get_path(uri) : nullptr;
  return path && path_ == path;
}

void Server::answer(evhttp_request* request) {
  if (!is_allowed(request)) {
    evhttp_send_error(request, 403, "Forbidden");
    return;
  }
  evkeyvalq* const headers = evhttp_request_get_output_headers(request);
  evhttp_add_header(headers, "Access-Control-Allow-Origin", kPage);
  evhttp_add_header(headers, "Cache-Control", "no-store");
  if (evhttp_request_get_command(request) == EVHTTP_REQ_OPTIONS) {
    // Browsers ask before a page may reach into the local network.
    evhttp_add_header(headers, "Access-Control-Allow-Methods", "GET");
    evhttp_add_header(headers, "Access-Control-Allow-Private-Network", "true");
    evhttp_send_reply(request, 204, "No Content", nullptr);
    return;
  }
  auto file = open_file(file_);
  const Buffer body(evbuffer_new());
  if (!is_for_file(request) || !file || !body) {
    evhttp_send_error(request, 404, "Not Found");
    return;
  }
  // The buffer owns the descriptor from here on.
  if (evbuffer_add_file(body.get(), file->fd.release(), 0, static_cast<ev_off_t>(file->size)) !=
      0) {
    evhttp_send_error(request, 500, "Internal Server Error");
    return;
  }
  evhttp_add_header(headers, "Content-Type", "application/octet-stream");
  evhttp_request_set_on_complete_cb(request, on_sent, this);
  evhttp_send_reply(request, 200, "OK", body.get());
}

}  // namespace

int run_open(const OpenArguments& arguments) {
  if (const auto file = open_file(arguments.file); !file) {
    say(file.error());
    return 1;
  }
  auto server = Server::make(arguments.file);
  if (!server) {
    say(server.error());
    return 1;
  }
  const StopSignals signals;
  if (const Status written = write_text("-", "Open " + server->address() + "\n"); !written) {
    say(written.error());
    return 1;
  }
  say("waiting until it is fetched; Ctrl-C ends it");
  if (server->serve()) return 0;
  say("nobody fetched " + arguments.file);
  return 1;
}

}  // namespace giltop
