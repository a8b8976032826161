// One persistent pool of threads for the process (or the WebAssembly memory).
//
// parallel(n, f) calls f(i) for every i in 0 … n−1, on any thread and in any
// order, and returns when all are done. The result must not depend on who does
// what: cut work by shape, never by the number of threads, and add partial sums
// up in a fixed order afterwards.
#pragma once
#include <stdint.h>

namespace lowbit {

extern "C" void lowbit_pool_run(int64_t tasks, void (*body)(void* context, int64_t task), void* context);

// Grow-only memory that the calling kernel may use until it returns; one block
// per slot (0 … 7), aligned to 64 bytes. Call it outside parallel().
extern "C" void* lowbit_scratch(int slot, int64_t bytes);

// Threads that the current call may use; for choosing the size of per-thread
// scratch only. thread() is this thread's index below it.
extern "C" int lowbit_threads();
extern "C" int lowbit_thread();

template <typename F> inline void parallel(int64_t tasks, const F& f) {
  if (tasks <= 0) return;
  if (tasks == 1) { f(int64_t{0}); return; }
  lowbit_pool_run(tasks, [](void* context, int64_t task) { (*static_cast<const F*>(context))(task); },
                  const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace lowbit
