// The spans of a page: bytes that its script unpacks (src/sink/page/spans.js).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "model/snapshot.h"
#include "model/spans.h"

namespace giltop {

// Of the snapshot's threads, in its order. Numbers are LEB128:
//
//     rows  { process, thread (places in the snapshot), first ns (since the snapshot's),
//             count of codes, count of bytes of the values } …
//     codes and values of each row in turn
//
// A code is a byte. 0 to 15: a span of this cell (GilState * 4 + CpuState), its value the duration,
// ns. kMixedCode: a span of several cells; values are how many, and of each cell and ns.
// kGilCode: from here on it is about this GIL of the process, its place in the snapshot.
inline constexpr unsigned kMixedCode = Span::kMixed, kGilCode = 17;
std::string encode_spans(const Spans& spans, const Snapshot& snapshot);

// Compressed (zlib) and as base64, as the page's script unpacks it.
std::string packed(const std::string& bytes);
// Much is compressed in parts, each on its own, with this between them.
inline constexpr char kPartsApart = '.';

// How far long work is: so much of all.
using PageProgress = std::function<void(uint64_t done, uint64_t all)>;

// The spans, packed, in at most `most_bytes`: they are made coarser until they fit.
std::string packed_spans(Spans& spans, const Snapshot& snapshot, size_t most_bytes,
                         const PageProgress& progress = {});

}  // namespace giltop
