#include "probe/uprobes.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>

namespace giltop {
namespace {

constexpr auto kUprobeMulti = static_cast<bpf_attach_type>(48);  // BPF_TRACE_UPROBE_MULTI

// union bpf_attr's link_create.uprobe_multi (89ae89f53d20, 6.6), which Debian 12's headers lack.
struct LinkCreateUprobeMulti {
  uint32_t prog_fd;
  uint32_t target_fd;
  uint32_t attach_type;
  uint32_t link_flags;
  uint64_t path;
  uint64_t offsets;
  uint64_t ref_ctr_offsets;
  uint64_t cookies;
  uint32_t count;
  uint32_t flags;
  uint32_t pid;
  uint32_t pad;
};

bool types_have_multi() {
  struct Free {
    void operator()(btf* types) const { btf__free(types); }
  };
  const std::unique_ptr<btf, Free> types(btf__load_vmlinux_btf());
  if (!types) return false;
  const int id = btf__find_by_name_kind(types.get(), "bpf_attach_type", BTF_KIND_ENUM);
  if (id < 0) return false;
  const btf_type* type = btf__type_by_id(types.get(), static_cast<__u32>(id));
  const struct btf_enum* values = btf_enum(type);
  for (unsigned i = 0; i < btf_vlen(type); i++)
    if (std::strcmp(btf__name_by_offset(types.get(), values[i].name_off),
                    "BPF_TRACE_UPROBE_MULTI") == 0)
      return true;
  return false;
}

// As libbpf asks since 1.3 (probe_uprobe_multi_link(), tools/lib/bpf/features.c): of a place in
// "/", which is no file, a kernel that has it says EBADF. To read the kernel's types instead takes
// tens of milliseconds; that is for who may not load programs.
bool kernel_has_multi() {
  const bpf_insn return_0[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0},
                               {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  bpf_prog_load_opts options{};
  options.sz = sizeof(options);
  options.expected_attach_type = kUprobeMulti;
  const Fd program(
      bpf_prog_load(BPF_PROG_TYPE_KPROBE, nullptr, "GPL", return_0, std::size(return_0), &options));
  if (!program) return types_have_multi();
  const uint64_t offset = 0;
  LinkCreateUprobeMulti attr{};
  attr.prog_fd = static_cast<uint32_t>(program.get());
  attr.attach_type = kUprobeMulti;
  attr.path = reinterpret_cast<uint64_t>("/");
  attr.offsets = reinterpret_cast<uint64_t>(&offset);
  attr.count = 1;
  const Fd link(static_cast<int>(syscall(__NR_bpf, BPF_LINK_CREATE, &attr, sizeof(attr))));
  return !link && errno == EBADF;
}

// Before 46ba0e49b642 (6.10) uprobe_multi's pid meant one thread.
bool multi_pid_is_process() {
  utsname system{};
  uname(&system);
  unsigned major = 0, minor = 0;
  return std::sscanf(system.release, "%u.%u", &major, &minor) == 2 &&
         (major > 6 || (major == 6 && minor >= 10));
}

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

bool can_probe_one_process(UprobeWay way) {
  return way == UprobeWay::multi && multi_pid_is_process();
}

UprobeWay uprobe_way() {
  const char* forced = std::getenv("GILTOP_UPROBES");
  if (forced && std::strcmp(forced, "perf") == 0) return UprobeWay::perf;
  static const bool multi = kernel_has_multi();
  return multi ? UprobeWay::multi : UprobeWay::perf;
}

void prepare_for(UprobeWay way, bpf_program* program) {
  if (way == UprobeWay::multi) bpf_program__set_expected_attach_type(program, kUprobeMulti);
}

Result<Uprobes> Uprobes::make(UprobeWay way, bpf_program* program, const std::string& path,
                              const std::vector<UprobePlace>& places, int pid) {
  Uprobes uprobes;
  if (way == UprobeWay::multi) {
    std::vector<uint64_t> offsets, cookies;
    for (const UprobePlace& place : places) {
      offsets.push_back(place.file_offset);
      cookies.push_back(place.cookie);
    }
    LinkCreateUprobeMulti attr{};
    attr.prog_fd = static_cast<uint32_t>(bpf_program__fd(program));
    attr.attach_type = static_cast<uint32_t>(kUprobeMulti);
    attr.path = reinterpret_cast<uint64_t>(path.c_str());
    attr.offsets = reinterpret_cast<uint64_t>(offsets.data());
    attr.cookies = reinterpret_cast<uint64_t>(cookies.data());
    attr.count = static_cast<uint32_t>(places.size());
    // Elsewhere the program sorts out whose hit it is.
    if (pid > 0 && multi_pid_is_process()) attr.pid = static_cast<uint32_t>(pid);
    const long fd = syscall(__NR_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
    if (fd < 0) return system_error("set uprobes", errno);
    uprobes.multi_ = Fd(static_cast<int>(fd));
    return uprobes;
  }
  for (const UprobePlace& place : places) {
    LIBBPF_OPTS(bpf_uprobe_opts, options, .bpf_cookie = place.cookie);
    bpf_link* link =
        bpf_program__attach_uprobe_opts(program, pid, path.c_str(), place.file_offset, &options);
    if (!link) return system_error("set a uprobe at file offset " + hex(place.file_offset), errno);
    uprobes.links_.emplace_back(link);
  }
  return uprobes;
}

}  // namespace giltop
