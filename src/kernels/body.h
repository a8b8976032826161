// All kernels, compiled for one instruction set: included once by each
// body-*.cpp (and by wasm.cpp) after it has named itself, LOWBIT_BODY.
//
// A body is a single translation unit compiled with its own flags. It includes
// no header of the standard library with inline functions: the linker could
// pick the AVX-512 copy of one for code that runs on every processor.
#pragma once
#include "abi.h"
#include "simd.h"
#include "table.h"
#include "threads.h"

#include "accumulate.cpp"
#include "adamw.cpp"
#include "adamw4.cpp"
#include "adamw8.cpp"
#include "add-clusters.cpp"
#include "add-gram.cpp"
#include "add-row.cpp"
#include "add.cpp"
#include "arrange.cpp"
#include "attention.cpp"
#include "beam-entries.cpp"
#include "binary.cpp"
#include "cache-append.cpp"
#include "cholesky.cpp"
#include "collage.cpp"
#include "combine.cpp"
#include "cross-entropy.cpp"
#include "descend.cpp"
#include "embedding.cpp"
#include "fill.cpp"
#include "gelu.cpp"
#include "gptq-update.cpp"
#include "hadamard.cpp"
#include "half.cpp"
#include "join.cpp"
#include "layer-norm.cpp"
#include "learned-step.cpp"
#include "linear.cpp"
#include "look-up.cpp"
#include "match-states.cpp"
#include "momentum.cpp"
#include "nearest-e8p.cpp"
#include "nearest-entries.cpp"
#include "neighbour-sums.cpp"
#include "neighbourhoods.cpp"
#include "nested.cpp"
#include "orthogonalize.cpp"
#include "pick-columns.cpp"
#include "pixel-shuffle.cpp"
#include "relu2glu.cpp"
#include "rms-norm.cpp"
#include "rope.cpp"
#include "round-rows.cpp"
#include "scale-columns.cpp"
#include "scale-rows.cpp"
#include "sign.cpp"
#include "snap.cpp"
#include "soft-loss.cpp"
#include "split-bf16.cpp"
#include "squared-norm.cpp"
#include "svd.cpp"
#include "swiglu.cpp"
#include "ternary.cpp"
#include "triangular-solve.cpp"
#include "viterbi.cpp"

namespace lowbit::LOWBIT_BODY {

#define LOWBIT_KERNEL_ENTRY(name) {#name, name}, {#name "Backward", name##Backward},
#define LOWBIT_PROCEDURE_ENTRY(name) {#name, name},

static const Entry entries[] = {LOWBIT_KERNELS(LOWBIT_KERNEL_ENTRY) LOWBIT_PROCEDURES(LOWBIT_PROCEDURE_ENTRY)
                                LOWBIT_PREPARATIONS(LOWBIT_PROCEDURE_ENTRY)};

Table table() { return {entries, static_cast<int>(sizeof(entries) / sizeof(entries[0])), format::NAMES, format::COUNT, bf16Here()}; }

}  // namespace lowbit::LOWBIT_BODY
