// The nearest entry of a codebook: see nearest-entries.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace nearest {

constexpr int64_t TASK = 1 << 18;  // terms of one task, about
constexpr int TOGETHER = 4;        // vectors that share what is loaded of the book

struct Search {
  const float *x, *book, *w;  // the book as (d, padded)
  int64_t n, d, padded, m;
  int32_t* codes;
  float* errors;
};

// Lanes hold entries lane, lane + LANES, …; the lowest entry of the least sums wins.
inline void settle(const f32v& least, const f32v& place, int32_t* code, float* error) {
  float sums[LANES], places[LANES];
  store(sums, least);
  store(places, place);
  int best = 0;
  for (int i = 1; i < LANES; i++)
    if (sums[i] < sums[best] || (sums[i] == sums[best] && places[i] < places[best])) best = i;
  *code = static_cast<int32_t>(places[best]);
  *error = sums[best];
}

template <int COUNT> inline void some(const Search& s, int64_t i) {
  float lanes[LANES];
  for (int l = 0; l < LANES; l++) lanes[l] = static_cast<float>(l);
  f32v least[COUNT], place[COUNT];
  for (int v = 0; v < COUNT; v++) {
    least[v] = splat(__builtin_inff());
    place[v] = splat(0.0f);
  }
  f32v here = load(lanes);
  for (int64_t k = 0; k < s.padded; k += LANES) {
    f32v sums[COUNT];
    for (int v = 0; v < COUNT; v++) sums[v] = splat(0.0f);
    for (int64_t j = 0; j < s.d; j++) {
      const f32v entries = load(s.book + j * s.padded + k);
      for (int v = 0; v < COUNT; v++) {
        const f32v away = splat(s.x[(i + v) * s.d + j]) - entries;
        sums[v] = fma(splat(s.w[(i + v) % s.m * s.d + j]) * away, away, sums[v]);
      }
    }
    for (int v = 0; v < COUNT; v++) {
      place[v] = less(sums[v], least[v], here, place[v]);
      least[v] = less(sums[v], least[v], sums[v], least[v]);
    }
    here = here + splat(static_cast<float>(LANES));
  }
  for (int v = 0; v < COUNT; v++) settle(least[v], place[v], s.codes + i + v, s.errors + i + v);
}

}  // namespace nearest

void nearestEntries(Arguments a) {
  int32_t* codes = a.integers();
  float* errors = a.floats();
  const float* x = a.floats();
  const float* book = a.floats();
  const float* w = a.floats();
  const int64_t n = a.size(), d = a.size(), entries = a.size(), m = a.size();
  const int64_t padded = (entries + LANES - 1) / LANES * LANES;
  // Turned, and filled up with copies of entry 0, which never win against it.
  float* turned = static_cast<float*>(lowbit_scratch(0, 4 * d * padded));
  for (int64_t j = 0; j < d; j++)
    for (int64_t k = 0; k < padded; k++) turned[j * padded + k] = book[(k < entries ? k : 0) * d + j];
  const nearest::Search search{x, turned, w, n, d, padded, m, codes, errors};
  const int64_t each = nearest::TASK / (padded * d) + 1;
  parallel((n + each - 1) / each, [=](int64_t task) {
    int64_t i = task * each;
    const int64_t end = i + each < n ? i + each : n;
    for (; i + nearest::TOGETHER <= end; i += nearest::TOGETHER) nearest::some<nearest::TOGETHER>(search, i);
    for (; i < end; i++) nearest::some<1>(search, i);
  });
}

}  // namespace lowbit::LOWBIT_BODY
