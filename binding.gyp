# The native addon. Each body of kernels is a library of its own, because each
# has its own instruction set; `lowbit` chooses among them when it is loaded.
{
  # 1: under AddressSanitizer and UndefinedBehaviorSanitizer (scripts/sanitize.mjs).
  "variables": { "sanitize%": 0 },
  "target_defaults": {
    # Kernels say fma where they mean it: the compiler must not make others.
    "cflags": ["-O3", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"],
    "cflags_cc": ["-std=c++17"],
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
    "conditions": [
      [
        "sanitize==1",
        {
          "cflags!": ["-O3"],
          "cflags": [
            "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize=vptr",
            "-fno-sanitize-recover=undefined"
          ],
          "ldflags": ["-fsanitize=address,undefined"]
        }
      ]
    ],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++17",
      "GCC_OPTIMIZATION_LEVEL": "3",
      "OTHER_CPLUSPLUSFLAGS": ["-ffp-contract=off", "-fvisibility=hidden"]
    },
    "msvs_settings": {
      "VCCLCompilerTool": { "Optimization": 2, "AdditionalOptions": ["/std:c++17", "/fp:precise"] }
    }
  },
  "targets": [
    {
      "target_name": "body_portable",
      "type": "static_library",
      "sources": ["src/kernels/body-portable.cpp"]
    },
    {
      "target_name": "lowbit",
      "dependencies": ["body_portable"],
      "sources": [
        "src/kernels/napi.cpp",
        "src/kernels/memory-native.cpp",
        "src/kernels/paged-native.cpp",
        "src/kernels/threads-native.cpp"
      ],
      "cflags_cc!": ["-fno-exceptions"],
      "xcode_settings": { "GCC_ENABLE_CPP_EXCEPTIONS": "YES" },
      "msvs_settings": { "VCCLCompilerTool": { "ExceptionHandling": 1 } },
      "conditions": [
        ["target_arch=='x64'", { "dependencies": ["body_avx2", "body_avx512"] }],
        ["target_arch=='arm64' and OS!='win'", { "dependencies": ["body_neon"] }],
        ["sanitize==1", { "sources": ["src/kernels/memory-sanitize.cpp"] }, { "sources": ["src/kernels/memory.cpp"] }]
      ]
    }
  ],
  "conditions": [
    [
      "target_arch=='arm64' and OS!='win'",
      {
        "targets": [
          {
            "target_name": "body_neon",
            "type": "static_library",
            "sources": ["src/kernels/body-neon.cpp"],
            "cflags": ["-march=armv8.2-a+dotprod"],
            "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["-march=armv8.2-a+dotprod"] }
          }
        ]
      }
    ],
    [
      "target_arch=='x64'",
      {
        "targets": [
          {
            "target_name": "body_avx2",
            "type": "static_library",
            "sources": ["src/kernels/body-avx2.cpp"],
            "cflags": ["-mavx2", "-mfma", "-mf16c"],
            "xcode_settings": { "OTHER_CPLUSPLUSFLAGS": ["-mavx2", "-mfma", "-mf16c"] },
            "msvs_settings": { "VCCLCompilerTool": { "AdditionalOptions": ["/arch:AVX2"] } }
          },
          {
            "target_name": "body_avx512",
            "type": "static_library",
            "sources": ["src/kernels/body-avx512.cpp"],
            "cflags": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma", "-mf16c"],
            "xcode_settings": {
              "OTHER_CPLUSPLUSFLAGS": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma", "-mf16c"]
            },
            "msvs_settings": { "VCCLCompilerTool": { "AdditionalOptions": ["/arch:AVX512"] } }
          }
        ]
      }
    ]
  ]
}
