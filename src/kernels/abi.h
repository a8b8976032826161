// How TypeScript calls a kernel: one buffer of doubles, the same for the N-API
// addon and for WebAssembly. src/backends/heap.ts writes it; this reads it.
//
// Slots: for each tensor two, address and format (its number in the table of
// formats.h; 0 = f32, 1 = i32); then the kernel's numbers, in the order of
// `numbers()` in its .ts. A missing tensor has address 0.
//   forward    inputs, outputs, numbers
//   backward   inputs, outputs, dy, gradients (one for each input tensor), numbers
//   procedure  tensors, numbers
//
// No standard library here: the WebAssembly build has none.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace lowbit {

// A matrix in a packed format, as TypeScript wrote it into memory at upload.
struct Packed {
  double format;    // number in the table of formats.h
  double rows, cols;
  double group;     // weights per group along a row
  double parts[4];  // addresses, in the order of the format's parts(); 0 where there is none
  // A matrix for int8 activations is kept as panels (panels.h) of groups of so many activations, and its parts are gone:
  // that one was there is all that parts[i] says then. Otherwise both are 0.
  double panels, activations;
  // How those panels are multiplied: 0 by dot products; 1 by tables and 2 by counting bits, after they were turned into
  // planes of bits (bit-planes.h). Of codes with a book, whether a few rows of x look sums up (1, book-linear.h).
  double kernel;

  template <typename T> const T* part(int i) const { return reinterpret_cast<const T*>(static_cast<uintptr_t>(parts[i])); }
};

// A weight argument: plain floats, or packed.
struct WeightView {
  const float* floats;   // set when the format is f32
  const Packed* packed;  // set otherwise
};

// Reads the slots in order.
class Arguments {
 public:
  explicit Arguments(const double* slots) : at_(slots) {}

  float* floats() { return tensor<float>(); }
  int32_t* integers() { return tensor<int32_t>(); }
  WeightView weight() {
    const bool plain = at_[1] == 0;
    void* address = tensor<void>();
    return plain ? WeightView{static_cast<const float*>(address), nullptr}
                 : WeightView{nullptr, static_cast<const Packed*>(address)};
  }
  double number() { return *at_++; }
  int64_t size() { return static_cast<int64_t>(*at_++); }

 private:
  template <typename T> T* tensor() {
    T* address = reinterpret_cast<T*>(static_cast<uintptr_t>(at_[0]));
    at_ += 2;
    return address;
  }
  const double* at_;
};

using KernelFunction = void (*)(Arguments);

}  // namespace lowbit
