// Rows at … at+tokens−1 of a cache: see cache-append.ts.
#include "abi.h"
#include "cache-rows.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void cacheAppend(Arguments a) {
  constexpr int64_t ROWS = 16;  // of one task
  const WeightView cache = a.weight(), rows = a.weight();
  const int64_t tokens = a.size(), dim = a.size(), at = a.size();
  const auto copy = [](const void* from, void* to, int64_t bytes) { __builtin_memcpy(to, from, static_cast<size_t>(bytes)); };
  if (tokens == 0) return;
  if (cache.floats) {
    copy(rows.floats, const_cast<float*>(cache.floats) + at * dim, 4 * tokens * dim);
    return;
  }
  const caches::Stored to(*cache.packed);
  const int64_t bits = to.bits, group = to.group, rowBytes = to.rowBytes, groups = bits == 16 ? 0 : to.groups;
  uint8_t* data = const_cast<uint8_t*>(to.data) + at * rowBytes;
  uint16_t* scales = const_cast<uint16_t*>(to.scales) + at * groups;
  if (rows.packed) {
    const caches::Stored from(*rows.packed);
    copy(from.data, data, tokens * rowBytes);
    if (groups > 0) copy(from.scales, scales, 2 * tokens * groups);
    return;
  }
  parallel((tokens + ROWS - 1) / ROWS, [=](int64_t task) {
    for (int64_t t = task * ROWS; t < tokens && t < (task + 1) * ROWS; t++) {
      const float* x = rows.floats + t * dim;
      if (bits == 16) caches::halveRow(x, dim, reinterpret_cast<uint16_t*>(data + t * rowBytes));
      else if (bits == 8) caches::integerRow<8>(x, dim, group, data + t * rowBytes, scales + t * groups);
      else caches::integerRow<4>(x, dim, group, data + t * rowBytes, scales + t * groups);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
