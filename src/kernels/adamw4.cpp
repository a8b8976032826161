// One step of AdamW on moments of 4 bits: see adamw4.ts.
//
// The second moment of a matrix is kept relative to the largest of its row and
// of its column, which are known only when all of it is: it is computed once
// for them, and again with the step.
#include "abi.h"
#include "dynamic-map.h"
#include "moments.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {
namespace fourBits {

constexpr int BLOCK = 128;
using Signed = DynamicMap<3, 1, true>;

// The levels of each byte of two codes, the first in the lower half.
struct Pairs {
  float of[256][2];
};
constexpr Pairs signedPairs() {
  Pairs pairs = {};
  for (int byte = 0; byte < 256; byte++) {
    pairs.of[byte][0] = Signed::levels.of[byte & 15];
    pairs.of[byte][1] = Signed::levels.of[byte >> 4];
  }
  return pairs;
}
constexpr Pairs linearPairs() {
  Pairs pairs = {};
  for (int byte = 0; byte < 256; byte++) {
    pairs.of[byte][0] = static_cast<float>((byte & 15) + 1) / 16;
    pairs.of[byte][1] = static_cast<float>((byte >> 4) + 1) / 16;
  }
  return pairs;
}
static constexpr Pairs SIGNED = signedPairs(), LINEAR = linearPairs();

// Of a block that begins with a whole byte; what is behind `count` is not read afterwards.
inline void decode(const Pairs& pairs, const uint8_t* codes, int count, float* out) {
  for (int i = 0; i < (count + 1) / 2; i++) __builtin_memcpy(out + 2 * i, pairs.of[codes[i]], 8);
}

// Codes, as floats, into bytes; a half that has no code keeps what it was.
inline void encode(const float* codes, int count, uint8_t* out) {
  for (int i = 0; i < count / 2; i++)
    out[i] = static_cast<uint8_t>(static_cast<int>(codes[2 * i]) | static_cast<int>(codes[2 * i + 1]) << 4);
  if (count % 2) out[count / 2] = static_cast<uint8_t>((out[count / 2] & 0xf0) | static_cast<int>(codes[count - 1]));
}

// What the second moments of a block are relative to: min(row_i, column_j) from element `from` on.
inline void scalesOf(const float* rows, const float* columns, int64_t width, int64_t from, int count, float* out) {
  int64_t row = from / width, column = from % width;
  for (int i = 0; i < count;) {
    const int64_t left = width - column;
    const int part = static_cast<int>(left < count - i ? left : count - i);
    const float of = rows[row];
    for (int j = 0; j < part; j++) out[i + j] = columns[column + j] < of ? columns[column + j] : of;
    i += part;
    row++;
    column = 0;
  }
}

}  // namespace fourBits

void adamw4(Arguments a) {
  using namespace fourBits;
  constexpr int64_t TASK = 32;  // blocks
  float* w = a.floats();
  const float* gradient = a.floats();
  uint8_t* first = reinterpret_cast<uint8_t*>(a.integers());
  float* firstScale = a.floats();
  uint8_t* second = reinterpret_cast<uint8_t*>(a.integers());
  float* secondScale = a.floats();
  const float norm = a.floats()[0];
  const int64_t n = a.size(), width = a.size();
  if (!isFinite(norm) || n == 0) return;
  const Adam adam(a, norm);
  const int64_t blocks = (n + BLOCK - 1) / BLOCK;
  const bool isMatrix = width > 0;
  const int64_t rows = isMatrix ? n / width : 0;

  // The largest second moments of rows and of columns as they will be; those of columns over some rows first.
  float* next = static_cast<float*>(lowbit_scratch(0, (rows + width) * 4));
  if (isMatrix) {
    const int64_t atLeast = (4096 + width - 1) / width, spread = (rows + 63) / 64;
    const int64_t rowsPerTask = atLeast > spread ? atLeast : spread;
    const int64_t tasks = (rows + rowsPerTask - 1) / rowsPerTask;
    const int64_t line = (width + LANES - 1) / LANES * LANES;
    float* parts = static_cast<float*>(lowbit_scratch(1, tasks * line * 4));
    parallel(tasks, [=](int64_t task) {
      float* most = parts + task * line;
      for (int64_t j = 0; j < line; j++) most[j] = 0.0f;
      for (int64_t row = task * rowsPerTask; row < rows && row < (task + 1) * rowsPerTask; row++) {
        const f32v ofRow = splat(secondScale[row]);
        f32v top = splat(0.0f);
        alignas(64) float levels[BLOCK + 2];
        for (int64_t column = 0; column < width; column += BLOCK) {
          const int count = static_cast<int>(width - column < BLOCK ? width - column : BLOCK);
          // A row may begin in the middle of a byte.
          const int64_t at = row * width + column;
          const int odd = static_cast<int>(at & 1);
          decode(LINEAR, second + at / 2, count + odd, levels);
          for (int i = 0; i < count; i += LANES) {
            const int rest = count - i;
            const bool whole = rest >= LANES;
            const float *slope = gradient + at + i, *ofColumn = secondScale + rows + column + i;
            const f32v level = whole ? load(levels + odd + i) : load(levels + odd + i, rest);
            const f32v scale = min(whole ? load(ofColumn) : load(ofColumn, rest), ofRow);
            const f32v v = adam.second(scale * level, whole ? load(slope) : load(slope, rest));
            store(most + column + i, max(load(most + column + i), v));
            top = max(top, v);
          }
        }
        next[row] = groupScale(largest(top));
      }
    });
    for (int64_t j = 0; j < width; j++) {
      float top = 0.0f;
      for (int64_t task = 0; task < tasks; task++) top = parts[task * line + j] > top ? parts[task * line + j] : top;
      next[rows + j] = groupScale(top);
    }
  }

  parallel((blocks + TASK - 1) / TASK, [=](int64_t task) {
    alignas(64) float m[BLOCK], v[BLOCK], before[BLOCK], after[BLOCK];
    for (int64_t block = task * TASK; block < blocks && block < (task + 1) * TASK; block++) {
      const int64_t from = block * BLOCK;
      const int count = static_cast<int>(n - from < BLOCK ? n - from : BLOCK);
      for (int i = count / LANES * LANES; i < BLOCK; i++) m[i] = v[i] = before[i] = after[i] = 0.0f;
      decode(SIGNED, first + from / 2, count, m);
      decode(LINEAR, second + from / 2, count, v);
      if (isMatrix) {
        scalesOf(secondScale, secondScale + rows, width, from, count, before);
        scalesOf(next, next + rows, width, from, count, after);
      } else {
        for (int i = 0; i < count; i++) before[i] = secondScale[block];
      }
      for (int i = count; i % LANES != 0; i++) m[i] = 0.0f;  // half a byte too many
      const f32v scale1 = splat(firstScale[block]);
      f32v most1 = splat(0.0f), most2 = splat(0.0f);
      for (int i = 0; i < count; i += LANES) {
        const int rest = count - i;
        float* at = w + from + i;
        const float* slope = gradient + from + i;
        const bool whole = rest >= LANES;
        const Adam::State s = adam.next({whole ? load(at) : load(at, rest), scale1 * load(m + i), load(before + i) * load(v + i)},
                                        whole ? load(slope) : load(slope, rest));
        if (whole) store(at, s.w);
        else store(at, s.w, rest);
        store(m + i, s.first);
        store(v + i, s.second);
        most1 = max(most1, abs(s.first));
        most2 = max(most2, s.second);
      }
      const float top1 = largest(most1);
      firstScale[block] = groupScale(top1);
      if (!isMatrix) {
        secondScale[block] = groupScale(largest(most2));
        for (int i = 0; i < count; i++) after[i] = secondScale[block];
      }
      const f32v inverse1 = splat(inverseScale(top1));
      for (int i = 0; i < count; i += LANES) {
        store(m + i, Signed::nearest(load(m + i) * inverse1));
        const f32v scale = load(after + i), share = less(splat(0.0f), scale, load(v + i) / scale, splat(0.0f));
        store(v + i, max(splat(0.0f), min(splat(15.0f), round(share * splat(16.0f)) - splat(1.0f))));
      }
      encode(m, count, first + from / 2);
      encode(v, count, second + from / 2);
    }
  });
  for (int64_t i = 0; i < rows + width; i++) secondScale[i] = next[i];
}

}  // namespace lowbit::LOWBIT_BODY
