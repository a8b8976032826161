// The formats that kernels read. A new one is its header and a line in the list;
// TypeScript finds its number by the name of its stem. Formats that are not
// here come as `codes` or as f32.
#pragma once
#include "affine8.h"
#include "bf16.h"
#include "binary.h"
#include "codebook.h"
#include "codes.h"
#include "e81b.h"
#include "e8p.h"
#include "f16.h"
#include "int2.h"
#include "int3.h"
#include "int4.h"
#include "int6.h"
#include "int8.h"
#include "iq4_nl.h"
#include "nf2.h"
#include "nf3.h"
#include "nf4.h"
#include "q2_k.h"
#include "q3_k.h"
#include "q4_0.h"
#include "q4_1.h"
#include "q4_k.h"
#include "q5_0.h"
#include "q5_1.h"
#include "q5_k.h"
#include "q6_k.h"
#include "q8_0.h"
#include "tq1_0.h"
#include "tq2_0.h"
#include "trellis2.h"
#include "trellis3.h"
#include "trellis4.h"
#include "trits.h"

#define LOWBIT_FORMATS(each) \
  each(codes, Codes) \
  each(codebook, Codebook) \
  each(f16, F16) \
  each(bf16, BF16) \
  each(int8, Int8) \
  each(int6, Int6) \
  each(int4, Int4) \
  each(int3, Int3) \
  each(int2, Int2) \
  each(tq2_0, TQ2_0) \
  each(tq1_0, TQ1_0) \
  each(trits, Trits) \
  each(binary, Binary) \
  each(q8_0, Q8_0) \
  each(q4_0, Q4_0) \
  each(q4_1, Q4_1) \
  each(q5_0, Q5_0) \
  each(q5_1, Q5_1) \
  each(iq4_nl, IQ4_NL) \
  each(q2_k, Q2_K) \
  each(q3_k, Q3_K) \
  each(q4_k, Q4_K) \
  each(q5_k, Q5_K) \
  each(q6_k, Q6_K) \
  each(nf4, NF4) \
  each(nf3, NF3) \
  each(nf2, NF2) \
  each(trellis2, Trellis2) \
  each(trellis3, Trellis3) \
  each(trellis4, Trellis4) \
  each(e8p, E8P) \
  each(e81b, E81B) \
  each(affine8, Affine8)

namespace lowbit::LOWBIT_BODY {

namespace format {

// f32 and i32 are never packed.
#define LOWBIT_FORMAT_NUMBER(stem, Type) number_##stem,
#define LOWBIT_FORMAT_NAME(stem, Type) #stem,
enum Number { number_f32, number_i32, LOWBIT_FORMATS(LOWBIT_FORMAT_NUMBER) COUNT };
constexpr const char* NAMES[] = {"f32", "i32", LOWBIT_FORMATS(LOWBIT_FORMAT_NAME)};
#undef LOWBIT_FORMAT_NUMBER
#undef LOWBIT_FORMAT_NAME

template <typename F, typename Visit> LOWBIT_INLINE void visit(F format, const Packed&, const Visit& f) { f(format); }
template <typename Without, typename With, typename Visit>
LOWBIT_INLINE void visit(Either<Without, With>, const Packed& w, const Visit& f) {
  if (w.parts[2]) f(With{});
  else f(Without{});
}

}  // namespace format

// Calls f(F{}) for the format F of a packed matrix, if it is one of the list.
template <typename Visit> LOWBIT_INLINE void withFormat(const Packed& w, const Visit& f) {
  switch (static_cast<int>(w.format)) {
#define LOWBIT_FORMAT_CASE(stem, Type) \
  case format::number_##stem: return format::visit(Type{}, w, f);
    LOWBIT_FORMATS(LOWBIT_FORMAT_CASE)
#undef LOWBIT_FORMAT_CASE
    default: break;
  }
}

// Whether a format is one of codes, and not of floats that are only stored otherwise.
template <typename F> constexpr bool isCoded = !__is_base_of(Floats, F);

// Weights from … from+n−1 of a row, as floats: exactly the values of the format's .ts.
inline void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  withFormat(w, [=, &w](auto format) {
    using F = decltype(format);
    if constexpr (isCoded<F>) decodeBlocks<F>(w, row, from, n, out);
    else F::decode(w, row, from, n, out);
  });
}

}  // namespace lowbit::LOWBIT_BODY
