// The WebAssembly module: all kernels in one body, and what src/backends/wasm.ts
// calls. Addresses cross as doubles, because memory may be larger than 2 GiB.
#define LOWBIT_BODY simd
#define LOWBIT_WASM
#include "body.h"
#include "memory.h"

#define LOWBIT_EXPORT(name) extern "C" __attribute__((export_name(name)))

namespace lowbit {

namespace {
// The slots of one call, and how many they are.
constexpr int SLOTS = 256;
double commands[SLOTS];
int failed = 0;

double number(const void* address) { return static_cast<double>(reinterpret_cast<uintptr_t>(address)); }
void* pointer(double address) { return reinterpret_cast<void*>(static_cast<uintptr_t>(address)); }
}  // namespace

LOWBIT_EXPORT("commands") double lowbit_commands() { return number(commands); }
LOWBIT_EXPORT("slots") int lowbit_slots() { return SLOTS; }
LOWBIT_EXPORT("count") int lowbit_count() { return simd::table().count; }
// The name of an entry: bytes up to a zero.
LOWBIT_EXPORT("name") double lowbit_name(int entry) { return number(simd::table().entries[entry].name); }
// The name of a format of packed matrices, by its number, alike.
LOWBIT_EXPORT("formatCount") int lowbit_format_count() { return simd::table().formatCount; }
LOWBIT_EXPORT("formatName") double lowbit_format_name(int format) { return number(simd::table().formats[format]); }
LOWBIT_EXPORT("run") void lowbit_run(int entry) { simd::table().entries[entry].run(Arguments(commands)); }
LOWBIT_EXPORT("allocate") double lowbit_allocate(double bytes) { return number(allocate(static_cast<int64_t>(bytes))); }
LOWBIT_EXPORT("release") void lowbit_release(double address, double bytes) {
  release(pointer(address), static_cast<int64_t>(bytes));
}
LOWBIT_EXPORT("clear") void lowbit_clear(double address, double bytes) {
  __builtin_memset(pointer(address), 0, static_cast<size_t>(bytes));
}
LOWBIT_EXPORT("bytesInUse") double lowbit_bytes_in_use() { return static_cast<double>(bytes_in_use()); }
LOWBIT_EXPORT("takePeakBytes") double lowbit_take_peak_bytes() { return static_cast<double>(take_peak_bytes()); }

// Whether the kernel that just ended in a trap found no scratch memory.
LOWBIT_EXPORT("outOfMemory") int lowbit_out_of_memory() {
  const int answer = failed;
  failed = 0;
  return answer;
}

void out_of_memory(int64_t) {
  failed = 1;
  __builtin_trap();
}

}  // namespace lowbit
