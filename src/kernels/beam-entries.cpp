// Codes of sums of entries by beam search: see beam-entries.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace beams {

constexpr int64_t TASK = 1 << 18;  // terms of one task, about

struct Search {
  const float *x, *turned, *w;  // the books as (count, d, padded)
  int64_t n, d, count, entries, padded, rows, beam;
  int32_t* codes;
  float* errors;

  float entry(int64_t m, int64_t k, int64_t j) const { return turned[(m * d + j) * padded + k]; }
};

// A beam's codes and what it leaves of x.
struct Room {
  float *rest, *next;      // (beam, d)
  int32_t *codes, *other;  // (beam, count)
  float* sums;             // (padded)
  float* best;             // (beam), the least first
  int32_t* place;          // beam·entries + code of each
};

inline int64_t bytesOf(const Search& s) {
  const int64_t words = s.beam * (2 * s.d + 2 * s.count + 2) + s.padded;
  return (4 * words + 63) / 64 * 64;
}

inline Room roomAt(const Search& s, uint8_t* at) {
  Room r;
  r.rest = reinterpret_cast<float*>(at);
  r.next = r.rest + s.beam * s.d;
  r.sums = r.next + s.beam * s.d;
  r.best = r.sums + s.padded;
  r.place = reinterpret_cast<int32_t*>(r.best + s.beam);
  r.codes = r.place + s.beam;
  r.other = r.codes + s.beam * s.count;
  return r;
}

// The sums of the beam that leaves `rest` when its code of book m is each entry: into `sums`.
inline void tryAll(const Search& s, int64_t m, const float* rest, int32_t code, const float* w, float* target, float* sums) {
  for (int64_t j = 0; j < s.d; j++) target[j] = rest[j] + s.entry(m, code, j);
  for (int64_t k = 0; k < s.padded; k += LANES) {
    f32v sum = splat(0.0f);
    for (int64_t j = 0; j < s.d; j++) {
      const f32v away = splat(target[j]) - load(s.turned + (m * s.d + j) * s.padded + k);
      sum = fma(splat(w[j]) * away, away, sum);
    }
    store(sums + k, sum);
  }
}

inline void one(const Search& s, int64_t i, Room room) {
  const float* w = s.w + i % s.rows * s.d;
  for (int64_t m = 0; m < s.count; m++) {
    const int32_t given = s.codes[i * s.count + m];
    room.codes[m] = given >= 0 && given < s.entries ? given : 0;
  }
  for (int64_t j = 0; j < s.d; j++) {
    float rest = s.x[i * s.d + j];
    for (int64_t m = 0; m < s.count; m++) rest -= s.entry(m, room.codes[m], j);
    room.rest[j] = rest;
  }
  int64_t alive = 1;
  for (int64_t m = 0; m < s.count; m++) {
    const int64_t wanted = s.beam < alive * s.entries ? s.beam : alive * s.entries;
    int64_t found = 0;
    for (int64_t b = 0; b < alive; b++) {
      float* rest = room.rest + b * s.d;
      tryAll(s, m, rest, room.codes[b * s.count + m], w, room.next, room.sums);
      // The beam with this code taken out, to which whatever entry wins is put back.
      for (int64_t j = 0; j < s.d; j++) rest[j] = room.next[j];
      for (int64_t k = 0; k < s.entries; k++) {
        const float sum = room.sums[k];
        if (found == wanted && !(sum < room.best[found - 1])) continue;
        int64_t at = found < wanted ? found++ : found - 1;
        for (; at > 0 && sum < room.best[at - 1]; at--) {
          room.best[at] = room.best[at - 1];
          room.place[at] = room.place[at - 1];
        }
        room.best[at] = sum;
        room.place[at] = static_cast<int32_t>(b * s.entries + k);
      }
    }
    for (int64_t b = 0; b < found; b++) {
      const int64_t from = room.place[b] / s.entries, k = room.place[b] % s.entries;
      for (int64_t j = 0; j < s.d; j++) room.next[b * s.d + j] = room.rest[from * s.d + j] - s.entry(m, k, j);
      for (int64_t o = 0; o < s.count; o++) room.other[b * s.count + o] = room.codes[from * s.count + o];
      room.other[b * s.count + m] = static_cast<int32_t>(k);
    }
    float* rest = room.rest;
    room.rest = room.next;
    room.next = rest;
    int32_t* codes = room.codes;
    room.codes = room.other;
    room.other = codes;
    alive = found;
  }
  for (int64_t m = 0; m < s.count; m++) s.codes[i * s.count + m] = room.codes[m];
  float error = 0;
  for (int64_t j = 0; j < s.d; j++) error += w[j] * room.rest[j] * room.rest[j];
  s.errors[i] = error;
}

}  // namespace beams

void beamEntries(Arguments a) {
  int32_t* codes = a.integers();
  float* errors = a.floats();
  const float* x = a.floats();
  const float* books = a.floats();
  const float* w = a.floats();
  const int64_t n = a.size(), d = a.size(), count = a.size(), entries = a.size(), rows = a.size();
  int64_t beam = a.size(), all = 1;
  for (int64_t m = 0; m < count && all < beam; m++) all *= entries;
  if (beam > all) beam = all;  // there are no more sums
  const int64_t padded = (entries + LANES - 1) / LANES * LANES;
  float* turned = static_cast<float*>(lowbit_scratch(0, 4 * count * d * padded));
  for (int64_t m = 0; m < count; m++)
    for (int64_t j = 0; j < d; j++)
      for (int64_t k = 0; k < padded; k++)
        turned[(m * d + j) * padded + k] = k < entries ? books[(m * entries + k) * d + j] : 0.0f;
  const beams::Search search{x, turned, w, n, d, count, entries, padded, rows, beam, codes, errors};
  const int64_t bytes = beams::bytesOf(search);
  uint8_t* scratch = static_cast<uint8_t*>(lowbit_scratch(1, bytes * lowbit_threads()));
  const int64_t each = beams::TASK / (padded * d * count * beam) + 1;
  parallel((n + each - 1) / each, [=](int64_t task) {
    const beams::Room room = beams::roomAt(search, scratch + lowbit_thread() * bytes);
    const int64_t end = (task + 1) * each < n ? (task + 1) * each : n;
    for (int64_t i = task * each; i < end; i++) beams::one(search, i, room);
  });
}

}  // namespace lowbit::LOWBIT_BODY
