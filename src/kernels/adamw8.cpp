// One step of AdamW on moments of 8 bits: see adamw8.ts.
#include "abi.h"
#include "dynamic-map.h"
#include "moments.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void adamw8(Arguments a) {
  constexpr int BLOCK = 256;
  constexpr int64_t TASK = 16;  // blocks
  using Signed = DynamicMap<7, 1, true>;
  using Unsigned = DynamicMap<7, 2, false>;
  float* w = a.floats();
  const float* gradient = a.floats();
  uint8_t* first = reinterpret_cast<uint8_t*>(a.integers());
  float* firstScale = a.floats();
  uint8_t* second = reinterpret_cast<uint8_t*>(a.integers());
  float* secondScale = a.floats();
  const float norm = a.floats()[0];
  const int64_t n = a.size(), blocks = (n + BLOCK - 1) / BLOCK;
  if (!isFinite(norm)) return;
  const Adam adam(a, norm);

  parallel((blocks + TASK - 1) / TASK, [=](int64_t task) {
    alignas(64) float m[BLOCK], v[BLOCK];
    for (int64_t block = task * TASK; block < blocks && block < (task + 1) * TASK; block++) {
      const int64_t from = block * BLOCK;
      const int count = static_cast<int>(n - from < BLOCK ? n - from : BLOCK);
      decodeBytes(Signed::levels.of, first + from, count, m);
      decodeBytes(Unsigned::levels.of, second + from, count, v);
      const f32v scale1 = splat(firstScale[block]), scale2 = splat(secondScale[block]);
      f32v most1 = splat(0.0f), most2 = splat(0.0f);
      for (int i = 0; i < count; i += LANES) {
        const int rest = count - i;
        float* at = w + from + i;
        const float* slope = gradient + from + i;
        const bool whole = rest >= LANES;
        const Adam::State s = adam.next({whole ? load(at) : load(at, rest), scale1 * load(m + i), scale2 * load(v + i)},
                                        whole ? load(slope) : load(slope, rest));
        if (whole) store(at, s.w);
        else store(at, s.w, rest);
        store(m + i, s.first);
        store(v + i, s.second);
        most1 = max(most1, abs(s.first));
        most2 = max(most2, s.second);
      }
      const float top1 = largest(most1), top2 = largest(most2);
      firstScale[block] = groupScale(top1);
      secondScale[block] = groupScale(top2);
      const f32v inverse1 = splat(inverseScale(top1)), inverse2 = splat(inverseScale(top2));
      for (int i = 0; i < count; i += LANES) {
        store(m + i, Signed::nearest(load(m + i) * inverse1));
        store(v + i, Unsigned::nearest(load(v + i) * inverse2));
      }
      for (int i = 0; i < count; i++) first[from + i] = static_cast<uint8_t>(static_cast<int>(m[i]));
      for (int i = 0; i < count; i++) second[from + i] = static_cast<uint8_t>(static_cast<int>(v[i]));
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
