// The best codes of a trellis: see viterbi.ts and formats/trellis.ts.
#include "../formats/trellis.h"
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace trellis {

constexpr int STATE = 14, STATES = 1 << STATE;
constexpr int64_t MEETING = 48;

// Costs of states are kept by the bits that the next step drops: state (j << BITS) + h at h·KEPT + j, so that the states that
// lead to one and the same lie a whole number of vectors apart.
template <int BITS> struct Order {
  static constexpr int CHOICES = 1 << BITS, KEPT = STATES / CHOICES, STRIDE = KEPT / CHOICES;
  static int place(int state) { return (state & (CHOICES - 1)) * KEPT + (state >> BITS); }
};

// What a thread needs: costs before and after a step, and the least ones of the states that lead to one.
struct Room {
  float cost[2][STATES];
  float least[STATES / 4], sorted[STATES / 4], chosen[STATES / 4];
};

// States of the best path over x; `overlap` −1: of all paths. `values` in the order of costs.
template <int BITS>
inline void path(const float* x, int64_t n, int overlap, const float* values, Room& room, uint8_t* back, uint16_t* states) {
  using O = Order<BITS>;
  float* cost = room.cost[0];
  float* next = room.cost[1];
  for (int s = 0; s < STATES; s++) {
    const float away = x[0] - values[O::place(s)];
    cost[O::place(s)] = overlap < 0 || s % O::KEPT == overlap ? away * away : __builtin_inff();
  }
  for (int64_t t = 1; t < n; t++) {
    uint8_t* choice = back + t * O::KEPT;
    for (int j = 0; j < O::KEPT; j += LANES) {
      f32v least = load(cost + j), best = splat(0.0f);
#pragma GCC unroll 16
      for (int h = 1; h < O::CHOICES; h++) {
        const f32v other = load(cost + h * O::KEPT + j);
        best = less(other, least, splat(static_cast<float>(h)), best);
        least = less(other, least, other, least);
      }
      store(room.least + j, least);
      store(room.chosen + j, best);
    }
    for (int j = 0; j < O::KEPT; j++) choice[j] = static_cast<uint8_t>(static_cast<int32_t>(room.chosen[j]));
    // A step's state c·KEPT + j stands, for j = CHOICES·i + q, at q·KEPT + c·STRIDE + i.
    for (int i = 0; i < O::STRIDE; i++)
#pragma GCC unroll 16
      for (int q = 0; q < O::CHOICES; q++) room.sorted[q * O::STRIDE + i] = room.least[i * O::CHOICES + q];
    const f32v here = splat(x[t]);
    for (int q = 0; q < O::CHOICES; q++)
      for (int c = 0; c < O::CHOICES; c++)
        for (int i = 0; i < O::STRIDE; i += LANES) {
          const int64_t place = q * O::KEPT + c * O::STRIDE + i;
          const f32v away = here - load(values + place);
          store(next + place, fma(away, away, load(room.sorted + q * O::STRIDE + i)));
        }
    float* other = cost;
    cost = next;
    next = other;
  }
  int best = -1;
  for (int s = 0; s < STATES; s++) {
    if (overlap >= 0 && s >> BITS != overlap) continue;
    if (best < 0 || cost[O::place(s)] < cost[O::place(best)]) best = s;
  }
  for (int64_t t = n - 1; t >= 0; t--) {
    states[t] = static_cast<uint16_t>(best);
    const int j = best % O::KEPT;
    if (t > 0) best = j * O::CHOICES + back[t * O::KEPT + j];
  }
}

template <int BITS>
inline void sequences(int32_t* codes, float* out, const float* x, int64_t n, int64_t length) {
  using O = Order<BITS>;
  float* values = static_cast<float*>(lowbit_scratch(0, 4 * STATES));
  for (int s = 0; s < STATES; s++) values[O::place(s)] = trellisValue(static_cast<uint32_t>(s));
  const int64_t roomBytes = static_cast<int64_t>(sizeof(Room)), backBytes = length * O::KEPT;
  const int64_t bytes = (roomBytes + backBytes + 2 * length + 63) / 64 * 64;
  uint8_t* scratch = static_cast<uint8_t*>(lowbit_scratch(1, bytes * lowbit_threads()));
  parallel(n, [=](int64_t i) {
    uint8_t* own = scratch + lowbit_thread() * bytes;
    Room& room = *reinterpret_cast<Room*>(own);
    uint8_t* back = own + roomBytes;
    uint16_t* states = reinterpret_cast<uint16_t*>(own + roomBytes + backBytes);
    const float* row = x + i * length;
    const int64_t near = MEETING < length / 2 ? MEETING : length / 2;
    float around[2 * MEETING];
    for (int64_t t = 0; t < 2 * near; t++) around[t] = row[(length - near + t) % length];
    path<BITS>(around, 2 * near, -1, values, room, back, states);
    path<BITS>(row, length, states[near] % O::KEPT, values, room, back, states);
    for (int64_t t = 0; t < length; t++) {
      codes[i * length + t] = states[t] & ((1 << BITS) - 1);
      out[i * length + t] = values[O::place(states[t])];
    }
  });
}

}  // namespace trellis

void viterbi(Arguments a) {
  int32_t* codes = a.integers();
  float* out = a.floats();
  const float* x = a.floats();
  const int64_t n = a.size(), length = a.size(), bits = a.size();
  if (bits == 2) trellis::sequences<2>(codes, out, x, n, length);
  else if (bits == 3) trellis::sequences<3>(codes, out, x, n, length);
  else trellis::sequences<4>(codes, out, x, n, length);
}

}  // namespace lowbit::LOWBIT_BODY
