// giltop_bench_floor FILE: sets an empty program on the acquire and release sites of a CPython, for
// every process that maps it, as `giltop record -- COMMAND` sets its own. Prints "ready" and keeps
// them until its stdin ends.
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "floor.skel.h"
#include "probe/uprobes.h"
#include "target/elf_file.h"
#include "target/gil_sites.h"

namespace giltop::bench {
namespace {

struct Destroy {
  void operator()(floor_bpf* skeleton) const { floor_bpf__destroy(skeleton); }
};

Result<std::vector<UprobePlace>> places_in(const std::string& path) {
  const auto file = ElfFile::open(path);
  if (!file) return file.error();
  const auto inspection = inspect_native_elf(*file);
  if (!inspection) return inspection.error();
  if (inspection->kind != Inspection::Kind::cpython)
    return Error(inspection->reason.empty() ? "not a CPython" : inspection->reason);
  std::vector<UprobePlace> places;
  for (const GilSite& site : inspection->cpython.sites)
    if (site.kind == SiteKind::acquire || site.kind == SiteKind::release)
      places.push_back({site.probe.file_offset, 0});
  return places;
}

Status run(const std::string& path) {
  const auto places = places_in(path);
  if (!places) return places.error().in(path);
  const UprobeWay way = uprobe_way();
  const std::unique_ptr<floor_bpf, Destroy> skeleton(floor_bpf__open());
  if (!skeleton) return system_error("open the BPF program", errno);
  prepare_for(way, skeleton->progs.on_hit);
  if (floor_bpf__load(skeleton.get()) != 0) return system_error("load the BPF program", errno);
  const auto probes = Uprobes::make(way, skeleton->progs.on_hit, path, *places, -1);
  if (!probes) return probes.error().in(path);
  fmt::print("ready\n");
  std::fflush(stdout);
  char ignored[64];
  while (read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
  return ok();
}

}  // namespace
}  // namespace giltop::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: giltop_bench_floor FILE\n");
    return 2;
  }
  const giltop::Status done = giltop::bench::run(argv[1]);
  if (done) return 0;
  fmt::print(stderr, "giltop_bench_floor: {}\n", done.error().message());
  return 1;
}
