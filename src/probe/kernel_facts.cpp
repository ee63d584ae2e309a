#include "probe/kernel_facts.h"

#include <bpf/btf.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

namespace giltop {
namespace {

struct BtfDeleter {
  void operator()(btf* types) const { btf__free(types); }
};

// sched_switch passes prev_state since 5.18: (context, preempt, prev, next, prev_state). Older
// kernels may have got it, too.
bool switch_has_prev_state() {
  const std::unique_ptr<btf, BtfDeleter> types(btf__load_vmlinux_btf());
  if (!types) return false;
  const int id = btf__find_by_name_kind(types.get(), "btf_trace_sched_switch", BTF_KIND_TYPEDEF);
  if (id < 0) return false;
  const btf_type* type = btf__type_by_id(types.get(), static_cast<__u32>(id));
  while (type && (btf_is_typedef(type) || btf_is_ptr(type)))
    type = btf__type_by_id(types.get(), type->type);
  return type && btf_is_func_proto(type) && btf_vlen(type) >= 5;
}

}  // namespace

Result<KernelFacts> look_at_kernel() {
  if (access("/sys/kernel/btf/vmlinux", R_OK) != 0)
    return Error(
        "cannot trace: this kernel has no type information (/sys/kernel/btf/vmlinux, "
        "CONFIG_DEBUG_INFO_BTF=y); Debian 12, Fedora and Ubuntu 22.04 and newer have it");
  utsname system;
  uname(&system);
  unsigned major = 0, minor = 0;
  if (std::sscanf(system.release, "%u.%u", &major, &minor) == 2 &&
      (major < 5 || (major == 5 && minor < 15)))
    return Error(std::string("cannot trace: giltop needs Linux 5.15 or newer, this is ") +
                 system.release);
  struct stat pid_namespace;
  constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;  // PROC_PID_INIT_INO, include/linux/proc_ns.h
  if (stat("/proc/self/ns/pid", &pid_namespace) == 0 &&
      pid_namespace.st_ino != kInitialPidNamespace)
    return Error(
        "cannot trace from inside a PID namespace: run giltop on the host, or the container "
        "with the host's (docker run --pid=host)");
  KernelFacts facts;
  facts.switch_has_prev_state = major > 5 || (major == 5 && minor >= 18) || switch_has_prev_state();
  return facts;
}

}  // namespace giltop
