#include "bregman/site.h"

#include <stdio.h>

void bg_section_name(size_t section, char out[BG_SECTION_NAME_BYTES])
{
    if (section == BG_SECTION_EMBEDDING || section == BG_SECTION_HEAD)
        snprintf(out, BG_SECTION_NAME_BYTES, section == BG_SECTION_HEAD ? "head" : "embedding");
    else
        snprintf(out, BG_SECTION_NAME_BYTES, "block-%03zu", section);
}
