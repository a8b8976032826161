// y = x·Wᵀ for a few rows of x and codes with a book (codebook.h), without
// decoding W: a byte of codes chooses among the 256 sums that it can stand for,
//
//   y[o] = Σ_groups scale·Σ_bytes table[byte],  table[b] = Σ_codes of b  book[code]·(its piece of x)
//
// (T-MAC, Wei et al., 2024, https://arxiv.org/abs/2407.00088, with a book's entries
// in the place of bits). A row of x looks sums up. Where there are more rows than
// that pays for, the sums are made where they are needed, a lane for each row of x,
// by the same operations in the same order: a row's result does not depend on how
// many there are, and a text not on who guesses it.
//
// A code has 1, 2, 4 or 8 bits, and rows and groups are whole bytes of codes:
// backends/kernel-choice.ts sees to it.
#pragma once
#include "../formats/codebook.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace books {

// Bytes of a row of codes at a time. Their tables, 32 KB, stay in the first-level cache.
constexpr int64_t BLOCK = 32;
constexpr int SUMS = 256;
struct Book {
  const uint8_t* codes;
  const float* scales;  // (rows, groups), or null
  const float* entries;
  const float* turned;  // (length, 1 << bits, at least LANES): entries side by side, zeros where there is none
  int64_t rows, bytes, groupBytes, groups;
  int bits, length;

  int values() const { return 1 << bits; }
  int width() const { return values() < LANES ? LANES : values(); }
  int64_t weights() const { return 8 / bits * length; }  // of a byte
};

// Uses scratch slot 0.
inline Book bookOf(const Packed& w) {
  const Codebook::Head& head = *w.part<Codebook::Head>(3);
  const int64_t cols = static_cast<int64_t>(w.cols);
  Book book{w.part<uint8_t>(0), w.part<float>(1), w.part<float>(2), nullptr, static_cast<int64_t>(w.rows), head.bytesPerRow, 0, 0, head.bits, head.length};
  book.groups = cols / static_cast<int64_t>(w.group);
  book.groupBytes = book.bytes / book.groups;
  const int width = book.width();
  float* turned = static_cast<float*>(lowbit_scratch(0, 4 * static_cast<int64_t>(width) * head.length));
  for (int j = 0; j < head.length; j++)
    for (int k = 0; k < width; k++) turned[j * width + k] = k < head.entries ? book.entries[k * head.length + j] : 0.0f;
  book.turned = turned;
  return book;
}

// The sums of one byte of codes for a row of x.
inline void putTable(const Book& w, const float* x, float* table) {
  const int values = w.values(), width = w.width();
  alignas(64) float own[SUMS];
  for (int size = 1; size < SUMS; size *= values, x += w.length) {
    float* sums = w.bits == 8 ? table : own;
    for (int k = 0; k < values; k += LANES) {
      f32v sum = splat(0.0f);
      for (int j = 0; j < w.length; j++) sum = fma(splat(x[j]), load(w.turned + j * width + k), sum);
      store(sums + k, sum);
    }
    if (w.bits == 8) return;
    for (int k = values - 1; k >= 0; k--) {
      float* to = table + k * size;
      int i = 0;
      if (size == 1) to[i++] = own[k];
      for (const f32v more = splat(own[k]); i + LANES <= size; i += LANES) store(to + i, load(table + i) + more);
      for (; i < size; i++) to[i] = table[i] + own[k];
    }
  }
}

// One row of x: a number for each row of W.
struct Looking {
  using Sum = float;
  float* tables;
  const float* x;

  void prepare(const Book& w, int64_t from, int64_t n) const {
    for (int64_t i = 0; i < n; i++) putTable(w, x + (from + i) * w.weights(), tables + i * SUMS);
  }
  template <int> LOWBIT_INLINE float at(const Book&, int64_t i, uint8_t byte) const { return tables[i * SUMS + byte]; }
  static LOWBIT_INLINE float zero() { return 0.0f; }
  static LOWBIT_INLINE float get(const float* total) { return *total; }
  static LOWBIT_INLINE void set(float* total, float sum) { *total = sum; }
  static LOWBIT_INLINE float times(float scale, float sum) { return scale * sum; }
};

// Up to LANES·V rows of x, `stride` apart: a lane for each.
template <int V> struct Multiplying {
  struct Sum {
    f32v v[V];
  };
  float* lanes;  // (weights of a block, LANES·V)
  const float* x;
  int64_t stride;
  int rows;

  void prepare(const Book& w, int64_t from, int64_t n) const {
    const int64_t weights = n * w.weights();
    const float* piece = x + from * w.weights();
    for (int64_t i = 0; i < weights; i++)
      for (int r = 0; r < LANES * V; r++) lanes[i * LANES * V + r] = r < rows ? piece[r * stride + i] : 0.0f;
  }
  template <int LENGTH> LOWBIT_INLINE Sum at(const Book& w, int64_t i, uint8_t byte) const {
    const int bits = w.bits, length = LENGTH ? LENGTH : w.length;
    const float* from = lanes + i * (8 / bits) * length * LANES * V;
    Sum total = zero();
    for (int c = 0; c < 8; c += bits) {
      const float* entry = w.entries + (byte >> c & ((1 << bits) - 1)) * length;
      Sum sum = zero();
      for (int j = 0; j < length; j++, from += LANES * V)
        for (int v = 0; v < V; v++) sum.v[v] = fma(load(from + v * LANES), splat(entry[j]), sum.v[v]);
      total = c == 0 ? sum : total + sum;
    }
    return total;
  }
  friend LOWBIT_INLINE Sum operator+(Sum a, Sum b) {
    for (int v = 0; v < V; v++) a.v[v] = a.v[v] + b.v[v];
    return a;
  }
  static LOWBIT_INLINE Sum zero() {
    Sum sum;
    for (int v = 0; v < V; v++) sum.v[v] = splat(0.0f);
    return sum;
  }
  static LOWBIT_INLINE Sum get(const float* total) {
    Sum sum;
    for (int v = 0; v < V; v++) sum.v[v] = load(total + v * LANES);
    return sum;
  }
  static LOWBIT_INLINE void set(float* total, Sum sum) {
    for (int v = 0; v < V; v++) store(total + v * LANES, sum.v[v]);
  }
  static LOWBIT_INLINE Sum times(float scale, Sum sum) {
    for (int v = 0; v < V; v++) sum.v[v] = sum.v[v] * splat(scale);
    return sum;
  }
};

// Bytes from … from+n−1 of a block.
template <int LENGTH, typename Way> LOWBIT_INLINE typename Way::Sum sumOf(const Book& w, const Way& way, const uint8_t* codes, int64_t from, int64_t n) {
  typename Way::Sum a = Way::zero(), b = a, c = a, d = a;
  int64_t i = from;
  for (; i + 4 <= from + n; i += 4) {
    a = a + way.template at<LENGTH>(w, i, codes[i]);
    b = b + way.template at<LENGTH>(w, i + 1, codes[i + 1]);
    c = c + way.template at<LENGTH>(w, i + 2, codes[i + 2]);
    d = d + way.template at<LENGTH>(w, i + 3, codes[i + 3]);
  }
  for (; i < from + n; i++) a = a + way.template at<LENGTH>(w, i, codes[i]);
  return (a + b) + (c + d);
}

// Rows first … last−1 of W; `totals` are theirs, WIDTH floats each.
template <int LENGTH, int WIDTH, typename Way>
inline void sumRows(const Book& w, const Way& way, int64_t first, int64_t last, float* totals) {
  for (int64_t from = 0; from < w.bytes; from += BLOCK) {
    const int64_t n = w.bytes - from < BLOCK ? w.bytes - from : BLOCK;
    way.prepare(w, from, n);
    float* total = totals;
    for (int64_t o = first; o < last; o++, total += WIDTH) {
      const uint8_t* codes = w.codes + o * w.bytes + from;
      typename Way::Sum sum = from == 0 ? Way::zero() : Way::get(total);
      if (!w.scales) {
        sum = sum + sumOf<LENGTH>(w, way, codes, 0, n);
      } else {
        const float* scales = w.scales + o * w.groups;
        int64_t g = from / w.groupBytes;
        for (int64_t at = 0; at < n; g++) {
          const int64_t stop = (g + 1) * w.groupBytes - from < n ? (g + 1) * w.groupBytes - from : n;
          sum = sum + Way::times(scales[g], sumOf<LENGTH>(w, way, codes, at, stop - at));
          at = stop;
        }
      }
      Way::set(total, sum);
    }
  }
}

template <int WIDTH, typename Way> inline void sumRows(const Book& w, const Way& way, int64_t first, int64_t last, float* totals) {
  switch (w.length) {
    case 1: return sumRows<1, WIDTH>(w, way, first, last, totals);
    case 2: return sumRows<2, WIDTH>(w, way, first, last, totals);
    case 4: return sumRows<4, WIDTH>(w, way, first, last, totals);
    case 8: return sumRows<8, WIDTH>(w, way, first, last, totals);
    default: return sumRows<0, WIDTH>(w, way, first, last, totals);
  }
}

// Rows of W of a task: every task makes the tables, which should take a small part of its time.
inline int64_t taskOf(const Book& w) {
  const int64_t vectors = w.length * w.width() / LANES;  // products of a table
  return vectors < 32 ? 128 : 4 * vectors;
}

template <int V> inline void multiply(const float* x, const Book& w, float* y, int rows) {
  constexpr int WIDTH = LANES * V;
  const int64_t task = 128, cols = w.bytes * w.weights();
  const int64_t floats = (task + BLOCK * w.weights()) * WIDTH;
  float* memory = static_cast<float*>(lowbit_scratch(1, floats * 4 * lowbit_threads()));
  parallel((w.rows + task - 1) / task, [=](int64_t index) {
    const int64_t first = index * task, last = first + task < w.rows ? first + task : w.rows;
    float* totals = memory + lowbit_thread() * floats;
    sumRows<WIDTH>(w, Multiplying<V>{totals + task * WIDTH, x, cols, rows}, first, last, totals);
    for (int r = 0; r < rows; r++)
      for (int64_t o = first; o < last; o++) y[r * w.rows + o] = totals[(o - first) * WIDTH + r];
  });
}

// rows: at most 8. Uses scratch slots 0 and 1.
inline void linear(const float* x, const Packed& packed, float* y, int rows) {
  const Book w = bookOf(packed);
  const int64_t cols = w.bytes * w.weights();
  // Looking up costs as much for every row, multiplying as much for one as for all.
  if (rows > 2 && rows > w.weights()) return rows <= LANES ? multiply<1>(x, w, y, rows) : multiply<2>(x, w, y, rows);
  const int64_t task = taskOf(w), tasks = (w.rows + task - 1) / task;
  float* memory = static_cast<float*>(lowbit_scratch(1, BLOCK * SUMS * 4 * lowbit_threads()));
  parallel(tasks * rows, [=](int64_t index) {
    const int64_t r = index / tasks, first = index % tasks * task, last = first + task < w.rows ? first + task : w.rows;
    const Looking way{memory + lowbit_thread() * BLOCK * SUMS, x + r * cols};
    sumRows<0, 1>(w, way, first, last, y + r * w.rows + first);
  });
}

}  // namespace books

}  // namespace lowbit::LOWBIT_BODY
