// nf2: see normal-float.ts for the byte layout.
#pragma once
#include "normal-float.h"

namespace lowbit::LOWBIT_BODY {

using NF2 = NormalFloat<2>;

}  // namespace lowbit::LOWBIT_BODY
