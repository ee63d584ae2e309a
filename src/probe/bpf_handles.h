// Owned libbpf objects.
#pragma once

#include <bpf/libbpf.h>

#include <memory>

namespace giltop {

struct LinkDeleter {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
using Link = std::unique_ptr<bpf_link, LinkDeleter>;

}  // namespace giltop
