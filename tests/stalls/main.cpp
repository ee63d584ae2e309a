// giltop_stalls [--share PERCENT] [--longest MS] -- COMMAND...: runs COMMAND on a machine whose
// CPUs stop now and then, as a virtual one's do whose hypervisor has other guests: nothing in it
// sees why a moment took so long. Ends with COMMAND's status.
#include <fmt/core.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/cpus.h"
#include "base/result.h"
#include "probe/sampler.h"
#include "stalls.skel.h"

namespace giltop::testing {
namespace {

struct Destroy {
  void operator()(stalls_bpf* skeleton) const { stalls_bpf__destroy(skeleton); }
};

struct Wanted {
  double share = 0.1;  // of the CPUs' time
  double longest_s = 0.012;
  std::vector<std::string> command;
};

// How likely a tick is to be a stall. A stall takes the longest one's time, or a half of it, and so
// on down to a 32nd, each as likely.
double chance_of(const Wanted& wanted) {
  const double mean_s = wanted.longest_s * (2 - 1.0 / 32) / 6;
  const double tick_s = 1.0 / Sampler::kRate_hz;
  return std::min(1.0, tick_s * wanted.share / (mean_s * (1 - wanted.share)));
}

// Its exit status, or 128 plus the signal that ended it.
Result<int> run(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  // Ctrl-C is for the command.
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGQUIT, SIG_IGN);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGINT);
  sigaddset(&defaults, SIGQUIT);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, words[0], nullptr, &attributes, words.data(), environ);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return system_error("run " + command[0], error);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return system_error("wait for " + command[0], errno);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Result<int> run_with_stalls(const Wanted& wanted) {
  const std::unique_ptr<stalls_bpf, Destroy> skeleton(stalls_bpf__open());
  if (!skeleton) return system_error("open the BPF program", errno);
  skeleton->rodata->longest_ns = static_cast<uint64_t>(wanted.longest_s * 1e9);
  skeleton->rodata->chance = static_cast<uint32_t>(chance_of(wanted) * ~uint32_t{0});
  if (stalls_bpf__load(skeleton.get()) != 0) return system_error("load the BPF program", errno);
  auto sampler = Sampler::make(skeleton->progs.on_tick);
  if (!sampler) return sampler.error();
  const uint64_t begin_ns = boot_ns();
  const auto status = run(wanted.command);
  const auto took_ns = static_cast<double>(boot_ns() - begin_ns);
  const size_t cpus = online_cpus().size();
  fmt::print(
      stderr, "stalls: {}, {:.1f} % of the time of {} CPUs\n", skeleton->bss->stalls,
      1e2 * static_cast<double>(skeleton->bss->stalled_ns) / (took_ns * static_cast<double>(cpus)),
      cpus);
  return status;
}

}  // namespace
}  // namespace giltop::testing

int main(int argc, char** argv) {
  giltop::testing::Wanted wanted;
  double share_percent = 1e2 * wanted.share, longest_ms = 1e3 * wanted.longest_s;
  CLI::App app("Runs a command while CPUs stop now and then, unseen, as a busy hypervisor's do.");
  app.add_option("--share", share_percent, "percent of the CPUs' time (10)")
      ->check(CLI::Range(0.1, 50.0));
  app.add_option("--longest", longest_ms, "ms; down to a 32nd of it (12)")
      ->check(CLI::Range(0.1, 40.0));
  app.add_option("command", wanted.command, "after --")->required();
  CLI11_PARSE(app, argc, argv);
  wanted.share = share_percent / 1e2;
  wanted.longest_s = longest_ms / 1e3;
  const auto status = giltop::testing::run_with_stalls(wanted);
  if (status) return *status;
  fmt::print(stderr, "giltop_stalls: {}\n", status.error().message());
  return 1;
}
