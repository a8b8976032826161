// The native addon: kernels for Node through the C interface of N-API, which
// is the same for all versions of Node since 12 and for Electron.
//
//   names                           names of the table, in order
//   formats                         names of the formats of packed matrices, by their numbers
//   bodies                          instruction sets that this processor has, best first
//   bf16                            those of them that multiply in BF16 where they may
//   attach(ArrayBuffer)             the commands of this environment: doubles that TypeScript writes, abi.h reads
//   run(entry, body, threads)       runs one operation on those commands
//   allocate(bytes) -> address      0 when there is no memory
//   allocatePaged(folder, bytes) -> address, releasePaged(address, bytes)      as of paged.h
//   release(address, bytes)
//   clear(address, bytes)           writes zeros
//   copyIn(address, view)           Electron forbids buffers over outside memory: tensors are copied
//   copyOut(address, view)
//   bytesInUse()
//   takePeakBytes()
#define NAPI_VERSION 8
#include <node_api.h>
#include <setjmp.h>
#include <string.h>

#include "abi.h"
#include "memory.h"
#include "paged.h"
#include "pool.h"
#include "table.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(_MSC_VER) && !defined(__clang__) && defined(_M_X64)
#include <intrin.h>
#endif

namespace lowbit {

namespace {

struct Body {
  const char* name;
  Table table;
};

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER) && !defined(__clang__)
// Of leaf 7: AVX2, and AVX-512 F, DQ, BW, VL, VNNI; and whether the system saves the registers.
bool has_avx2() {
  int id[4];
  __cpuidex(id, 1, 0);
  const bool fma = id[2] >> 12 & 1, saves = id[2] >> 27 & 1, half = id[2] >> 29 & 1;
  __cpuidex(id, 7, 0);
  return fma && saves && half && (id[1] >> 5 & 1) && (_xgetbv(0) & 0x6) == 0x6;
}
bool has_avx512() {
  int id[4];
  __cpuidex(id, 7, 0);
  const int needed = 1 << 16 | 1 << 17 | 1 << 30;
  return has_avx2() && (id[1] & needed) == needed && id[1] < 0 && (id[2] >> 11 & 1) && (_xgetbv(0) & 0xe6) == 0xe6;
}
#else
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif
#endif

#if defined(__aarch64__) && !defined(_WIN32)
bool has_dot_products() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;  // of other systems than Linux only Apple's computers are built for, which all have them
#endif
}
#endif

struct Bodies {
  Body list[3];
  const char* bf16[3];
  int count = 0, bf16Count = 0;
  Bodies() {
#if defined(__x86_64__) || defined(_M_X64)
    if (has_avx512()) list[count++] = {"avx512", avx512::table()};
    if (has_avx2()) list[count++] = {"avx2", avx2::table()};
#endif
#if defined(__aarch64__) && !defined(_WIN32)
    if (has_dot_products()) list[count++] = {"neon", neon::table()};
#endif
    list[count++] = {"portable", portable::table()};
    for (int i = 0; i < count; i++)
      if (list[i].table.bf16) bf16[bf16Count++] = list[i].name;
  }
};

const Bodies& bodies() {
  static const Bodies all;
  return all;
}

// What one environment (the main thread, or a worker) has of its own.
struct Environment {
  const double* commands = nullptr;
  size_t length = 0;
  napi_ref buffer = nullptr;
};

// Where out_of_memory() goes back to; set while this thread runs a kernel.
thread_local jmp_buf* way_back = nullptr;

napi_value fail(napi_env env, const char* message) {
  napi_throw_error(env, nullptr, message);
  return nullptr;
}

// The arguments of a call as they are; missing ones are undefined.
template <size_t N> void arguments(napi_env env, napi_callback_info info, napi_value (&values)[N]) {
  size_t count = N;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
}

void* address_of(napi_env env, napi_value value) {
  double address = 0;
  napi_get_value_double(env, value, &address);
  return reinterpret_cast<void*>(static_cast<uintptr_t>(address));
}

napi_value attach(napi_env env, napi_callback_info info) {
  napi_value values[1];
  arguments(env, info, values);
  Environment* own = nullptr;
  napi_get_instance_data(env, reinterpret_cast<void**>(&own));
  void* data = nullptr;
  size_t bytes = 0;
  if (napi_get_arraybuffer_info(env, values[0], &data, &bytes) != napi_ok) {
    return fail(env, "native: attach needs an ArrayBuffer");
  }
  if (own->buffer) napi_delete_reference(env, own->buffer);
  napi_create_reference(env, values[0], 1, &own->buffer);
  own->commands = static_cast<const double*>(data);
  own->length = bytes / sizeof(double);
  return nullptr;
}

napi_value run(napi_env env, napi_callback_info info) {
  napi_value values[3];
  arguments(env, info, values);
  int32_t numbers[3] = {-1, -1, 1};
  for (int i = 0; i < 3; i++) napi_get_value_int32(env, values[i], &numbers[i]);
  const Bodies& all = bodies();
  Environment* own = nullptr;
  napi_get_instance_data(env, reinterpret_cast<void**>(&own));
  if (numbers[1] < 0 || numbers[1] >= all.count) return fail(env, "native: run needs the number of a body");
  const Table& table = all.list[numbers[1]].table;
  if (numbers[0] < 0 || numbers[0] >= table.count) return fail(env, "native: run needs the number of an entry");
  if (!own->commands) return fail(env, "native: run needs commands; call attach first");

  PoolTurn turn(numbers[2]);
  jmp_buf here;
  way_back = &here;
  if (setjmp(here) == 0) {
    table.entries[numbers[0]].run(Arguments(own->commands));
    way_back = nullptr;
    return nullptr;
  }
  way_back = nullptr;
  return fail(env, "native: out of memory for intermediate results; use smaller batches");
}

napi_value allocate_block(napi_env env, napi_callback_info info) {
  napi_value values[1], result;
  arguments(env, info, values);
  double bytes = -1;
  napi_get_value_double(env, values[0], &bytes);
  void* address = allocate(static_cast<int64_t>(bytes));
  napi_create_double(env, static_cast<double>(reinterpret_cast<uintptr_t>(address)), &result);
  return result;
}

napi_value release_block(napi_env env, napi_callback_info info) {
  napi_value values[2];
  arguments(env, info, values);
  double bytes = 0;
  napi_get_value_double(env, values[1], &bytes);
  release(address_of(env, values[0]), static_cast<int64_t>(bytes));
  return nullptr;
}

napi_value allocate_paged_block(napi_env env, napi_callback_info info) {
  napi_value values[2], result;
  arguments(env, info, values);
  char folder[4096];
  size_t length = 0;
  double bytes = -1;
  napi_get_value_string_utf8(env, values[0], folder, sizeof folder, &length);
  napi_get_value_double(env, values[1], &bytes);
  void* address = allocate_paged(folder, static_cast<int64_t>(bytes));
  napi_create_double(env, static_cast<double>(reinterpret_cast<uintptr_t>(address)), &result);
  return result;
}

napi_value release_paged_block(napi_env env, napi_callback_info info) {
  napi_value values[2];
  arguments(env, info, values);
  double bytes = 0;
  napi_get_value_double(env, values[1], &bytes);
  release_paged(address_of(env, values[0]), static_cast<int64_t>(bytes));
  return nullptr;
}

napi_value clear(napi_env env, napi_callback_info info) {
  napi_value values[2];
  arguments(env, info, values);
  double bytes = 0;
  napi_get_value_double(env, values[1], &bytes);
  memset(address_of(env, values[0]), 0, static_cast<size_t>(bytes));
  return nullptr;
}

// Memory of a typed array.
bool view_of(napi_env env, napi_value value, void** data, size_t* bytes) {
  napi_typedarray_type type;
  size_t length = 0;
  if (napi_get_typedarray_info(env, value, &type, &length, data, nullptr, nullptr) != napi_ok) return false;
  switch (type) {
    case napi_int8_array: case napi_uint8_array: case napi_uint8_clamped_array: *bytes = length; return true;
    case napi_int16_array: case napi_uint16_array: *bytes = length * 2; return true;
    case napi_int32_array: case napi_uint32_array: case napi_float32_array: *bytes = length * 4; return true;
    case napi_float64_array: case napi_bigint64_array: case napi_biguint64_array: *bytes = length * 8; return true;
    default: return false;
  }
}

napi_value copy(napi_env env, napi_callback_info info, bool in) {
  napi_value values[2];
  arguments(env, info, values);
  void* data = nullptr;
  size_t bytes = 0;
  if (!view_of(env, values[1], &data, &bytes)) return fail(env, "native: copy needs a typed array");
  void* address = address_of(env, values[0]);
  if (bytes == 0) return nullptr;
  if (in) memcpy(address, data, bytes);
  else memcpy(data, address, bytes);
  return nullptr;
}
napi_value copy_in(napi_env env, napi_callback_info info) { return copy(env, info, true); }
napi_value copy_out(napi_env env, napi_callback_info info) { return copy(env, info, false); }

napi_value count_bytes(napi_env env, napi_callback_info) {
  napi_value result;
  napi_create_double(env, static_cast<double>(bytes_in_use()), &result);
  return result;
}

napi_value take_peak(napi_env env, napi_callback_info) {
  napi_value result;
  napi_create_double(env, static_cast<double>(take_peak_bytes()), &result);
  return result;
}

// Threads of the pool outlive the environment that made them: the library must stay when that environment, a worker,
// ends and Node unloads it.
void stay_loaded() {
#if defined(_WIN32)
  HMODULE self;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                     reinterpret_cast<LPCWSTR>(&stay_loaded), &self);
#else
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&stay_loaded), &self)) dlopen(self.dli_fname, RTLD_NOW | RTLD_NODELETE);
#endif
}

void set_strings(napi_env env, napi_value exports, const char* property, int count, const char* (*at)(int)) {
  napi_value list;
  napi_create_array_with_length(env, static_cast<size_t>(count), &list);
  for (int i = 0; i < count; i++) {
    napi_value name;
    napi_create_string_utf8(env, at(i), NAPI_AUTO_LENGTH, &name);
    napi_set_element(env, list, static_cast<uint32_t>(i), name);
  }
  napi_set_named_property(env, exports, property, list);
}

}  // namespace

void out_of_memory(int64_t) {
  if (way_back) longjmp(*way_back, 1);
}

napi_value initialize(napi_env env, napi_value exports) {
  stay_loaded();
  Environment* own = new Environment;
  napi_set_instance_data(env, own, [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); }, nullptr);

  set_strings(env, exports, "names", bodies().list[0].table.count,
              [](int i) { return bodies().list[0].table.entries[i].name; });
  set_strings(env, exports, "formats", bodies().list[0].table.formatCount,
              [](int i) { return bodies().list[0].table.formats[i]; });
  set_strings(env, exports, "bodies", bodies().count, [](int i) { return bodies().list[i].name; });
  set_strings(env, exports, "bf16", bodies().bf16Count, [](int i) { return bodies().bf16[i]; });

  const struct {
    const char* name;
    napi_callback call;
  } functions[] = {{"attach", attach},         {"run", run},       {"allocate", allocate_block},
                   {"release", release_block}, {"clear", clear},   {"copyIn", copy_in},
                   {"copyOut", copy_out},      {"bytesInUse", count_bytes},
                   {"takePeakBytes", take_peak},
                   {"allocatePaged", allocate_paged_block},
                   {"releasePaged", release_paged_block}};
  for (const auto& f : functions) {
    napi_value value;
    napi_create_function(env, f.name, NAPI_AUTO_LENGTH, f.call, nullptr, &value);
    napi_set_named_property(env, exports, f.name, value);
  }
  return exports;
}

}  // namespace lowbit

NAPI_MODULE_INIT() { return lowbit::initialize(env, exports); }
