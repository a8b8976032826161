// nf3: see normal-float.ts for the byte layout.
#pragma once
#include "normal-float.h"

namespace lowbit::LOWBIT_BODY {

using NF3 = NormalFloat<3>;

}  // namespace lowbit::LOWBIT_BODY
