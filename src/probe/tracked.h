// Tracked: what the kernel side knows of every process: whether it is traced, and how.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "base/result.h"
#include "giltop/abi.h"

namespace giltop {

// The kernel side's `tracked` (bpf/filter.bpf.h), a byte a process id, mapped here. It writes to
// it, too; what it does at the same time is not lost, nor is this.
class Tracked {
 public:
  // Errors: the map cannot be mapped.
  static Result<Tracked> make(int map_fd);
  // Of memory that is not the kernel's.
  explicit Tracked(std::span<uint8_t> by_tgid) : by_tgid_(by_tgid) {}
  Tracked(Tracked&& other) noexcept
      : by_tgid_(other.by_tgid_), mapped_(std::exchange(other.mapped_, false)) {}
  ~Tracked() {
    if (mapped_) munmap(by_tgid_.data(), by_tgid_.size());
  }
  Tracked& operator=(Tracked&&) = delete;

  // GT_TRACED ...; 0: not traced.
  uint8_t how(uint32_t tgid) const {
    return tgid < by_tgid_.size() ? std::atomic_ref(by_tgid_[tgid]).load() : uint8_t{0};
  }
  bool contains(uint32_t tgid) const { return how(tgid) != 0; }

  // False: there is no such id.
  bool set(uint32_t tgid, uint8_t how) const {
    if (tgid == 0 || tgid >= by_tgid_.size()) return false;
    std::atomic_ref(by_tgid_[tgid]).store(how);
    return true;
  }
  void erase(uint32_t tgid) const { (void)set(tgid, 0); }

  // Of one that is not traced. False: it is, or there is no such id.
  bool claim(uint32_t tgid, uint8_t how) const {
    if (tgid == 0 || tgid >= by_tgid_.size()) return false;
    uint8_t none = 0;
    return std::atomic_ref(by_tgid_[tgid])
        .compare_exchange_strong(none, static_cast<uint8_t>(how | GT_CLAIMED));
  }
  // Gives it up, unless the kernel side has begun to trace the id anew since.
  void give_up(uint32_t tgid) const {
    std::atomic_ref byte(by_tgid_[tgid]);
    uint8_t now = byte.load();
    while (now & GT_CLAIMED && !byte.compare_exchange_weak(now, 0)) {
    }
  }
  void keep(uint32_t tgid) const { change(tgid, GT_CLAIMED, 0); }

  // Of one that is traced: takes these bits away, then adds those. Who has ended stays so.
  void change(uint32_t tgid, uint8_t without, uint8_t with) const {
    if (tgid >= by_tgid_.size()) return;
    std::atomic_ref byte(by_tgid_[tgid]);
    uint8_t now = byte.load();
    while (now != 0 &&
           !byte.compare_exchange_weak(now, static_cast<uint8_t>((now & ~without) | with))) {
    }
  }

  // Calls f(tgid) for every process that is traced. Looks at all ids, some 0.5 ms.
  template <typename F>
  void for_each(F&& f) const {
    constexpr size_t kStep = sizeof(uint64_t);
    for (size_t at = 0; at + kStep <= by_tgid_.size(); at += kStep) {
      uint64_t some;
      std::memcpy(&some, by_tgid_.data() + at, kStep);
      if (some == 0) continue;
      for (size_t i = at; i < at + kStep; i++)
        if (const auto tgid = static_cast<uint32_t>(i); contains(tgid)) f(tgid);
    }
  }

 private:
  std::span<uint8_t> by_tgid_;
  bool mapped_ = false;
};

}  // namespace giltop
