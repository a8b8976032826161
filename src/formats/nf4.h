// nf4: see normal-float.ts for the byte layout.
#pragma once
#include "normal-float.h"

namespace lowbit::LOWBIT_BODY {

using NF4 = NormalFloat<4>;

}  // namespace lowbit::LOWBIT_BODY
