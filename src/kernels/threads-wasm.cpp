// The pool on WebAssembly workers that share this memory: the scheme of
// threads-native.cpp with the atomics of WebAssembly. Without shared memory
// (no cross-origin isolation) everything runs on the calling thread.
#include "threads.h"

namespace lowbit {

namespace {

// One until start(): a module without shared memory stays so, and never gets to the atomics.
int allowed = 1;
thread_local int index = 0;
thread_local bool inside = false;

using Body = void (*)(void*, int64_t);
constexpr uint64_t NUMBERS = 0xffffffff;
// How often a thread looks before it sleeps, for some 200 µs as threads-native.cpp: a look takes 0.3 ns in optimized code
// (the caller), and 1.3 ns in the engine's first code, which a worker's life keeps to its end, as it is one call.
constexpr int CALLER_SPINS = 600000;
constexpr int WORKER_SPINS = 150000;
constexpr int64_t CALLER_SLEEP = 200 * 1000;   // ns; only a safeguard, as the last worker wakes the caller
constexpr int STOP = -1;

// See threads-native.cpp.
struct Pool {
  alignas(128) uint64_t next;  // number of the job, next task
  alignas(128) int64_t done;
  alignas(128) Body body;
  void* context;
  int64_t tasks;
  alignas(128) int32_t posted;  // what workers sleep on: changes with each job; STOP ends them
  int32_t asleep;
  alignas(128) int32_t finished;  // what the caller sleeps on
  int32_t caller_asleep;
  int32_t broken;  // a worker ended in a trap: its tasks will never be done
};
Pool pool;

int64_t work(uint64_t number, Body body, void* context, int64_t tasks) {
  int64_t count = 0;
  uint64_t at = __atomic_load_n(&pool.next, __ATOMIC_ACQUIRE);
  for (;;) {
    if (at >> 32 != number || static_cast<int64_t>(at & NUMBERS) >= tasks) return count;
    if (!__atomic_compare_exchange_n(&pool.next, &at, at + 1, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) continue;
    body(context, static_cast<int64_t>(at & NUMBERS));
    count++;
    at = __atomic_load_n(&pool.next, __ATOMIC_ACQUIRE);
  }
}

// A browser's main thread must not sleep; JavaScript says whether this one is such.
bool may_sleep = false;

}  // namespace

extern "C" int lowbit_threads() { return allowed; }
extern "C" int lowbit_thread() { return index; }

extern "C" void lowbit_pool_run(int64_t tasks, void (*body)(void* context, int64_t task), void* context) {
  if (allowed == 1 || inside || tasks > static_cast<int64_t>(NUMBERS)) {
    for (int64_t task = 0; task < tasks; task++) body(context, task);
    return;
  }
  const uint64_t closed = ((pool.next >> 32) + 1) & NUMBERS;
  const uint64_t number = (closed + 1) & NUMBERS;
  __atomic_store_n(&pool.next, closed << 32 | NUMBERS, __ATOMIC_SEQ_CST);
  __atomic_store_n(&pool.body, body, __ATOMIC_SEQ_CST);
  __atomic_store_n(&pool.context, context, __ATOMIC_SEQ_CST);
  __atomic_store_n(&pool.tasks, tasks, __ATOMIC_SEQ_CST);
  __atomic_store_n(&pool.done, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n(&pool.next, number << 32, __ATOMIC_SEQ_CST);
  // Never STOP, which is negative.
  __atomic_store_n(&pool.posted, static_cast<int32_t>(number & 0x7fffffff), __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool.asleep, __ATOMIC_SEQ_CST) > 0) {
    __builtin_wasm_memory_atomic_notify(&pool.posted, 0xffffffff);
  }
  inside = true;
  const int64_t mine = work(number, body, context, tasks);
  inside = false;
  for (int spins = 0; __atomic_load_n(&pool.done, __ATOMIC_SEQ_CST) + mine < tasks; spins++) {
    if (__atomic_load_n(&pool.broken, __ATOMIC_SEQ_CST)) __builtin_trap();
    if (!may_sleep || spins < CALLER_SPINS) continue;
    const int32_t seen = __atomic_load_n(&pool.finished, __ATOMIC_SEQ_CST);
    __atomic_store_n(&pool.caller_asleep, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool.done, __ATOMIC_SEQ_CST) + mine < tasks) {
      __builtin_wasm_memory_atomic_wait32(&pool.finished, seen, CALLER_SLEEP);
    }
    __atomic_store_n(&pool.caller_asleep, 0, __ATOMIC_SEQ_CST);
  }
}

extern "C" __attribute__((export_name("start"))) void lowbit_start(int threads, int sleep) {
  allowed = threads < 1 ? 1 : threads;
  may_sleep = sleep != 0;
}

extern "C" __attribute__((export_name("stop"))) void lowbit_stop() {
  allowed = 1;
  __atomic_store_n(&pool.posted, STOP, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_notify(&pool.posted, 0xffffffff);
}

// Called by a worker that met a trap; the caller, which would wait for it forever, meets one too.
extern "C" __attribute__((export_name("fail"))) void lowbit_fail() {
  __atomic_store_n(&pool.broken, 1, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&pool.finished, 1, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_notify(&pool.finished, 1);
}

// The life of a worker; returns when stop() was called.
extern "C" __attribute__((export_name("worker"))) void lowbit_worker(int self) {
  index = self;
  inside = true;
  int32_t seen = 0;
  for (;;) {
    int32_t posted;
    for (int spins = 0; (posted = __atomic_load_n(&pool.posted, __ATOMIC_SEQ_CST)) == seen && spins < WORKER_SPINS;) spins++;
    if (posted == seen) {
      __atomic_fetch_add(&pool.asleep, 1, __ATOMIC_SEQ_CST);
      __builtin_wasm_memory_atomic_wait32(&pool.posted, seen, -1);
      __atomic_fetch_sub(&pool.asleep, 1, __ATOMIC_SEQ_CST);
      continue;
    }
    if (posted == STOP) return;
    seen = posted;
    const uint64_t number = __atomic_load_n(&pool.next, __ATOMIC_SEQ_CST) >> 32;
    const Body body = __atomic_load_n(&pool.body, __ATOMIC_SEQ_CST);
    void* context = __atomic_load_n(&pool.context, __ATOMIC_SEQ_CST);
    const int64_t tasks = __atomic_load_n(&pool.tasks, __ATOMIC_SEQ_CST);
    const int64_t count = work(number, body, context, tasks);
    if (count == 0) continue;
    __atomic_fetch_add(&pool.done, count, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool.caller_asleep, __ATOMIC_SEQ_CST)) {
      __atomic_fetch_add(&pool.finished, 1, __ATOMIC_SEQ_CST);
      __builtin_wasm_memory_atomic_notify(&pool.finished, 1);
    }
  }
}

}  // namespace lowbit
