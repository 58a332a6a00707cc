/* report/plan_page.h - a plan as one HTML page that needs nothing else: the page of runs
 * (run_page.h), which shows a plan where its data has one (page/plan.js). */
#ifndef HEADWAY_PLAN_PAGE_H
#define HEADWAY_PLAN_PAGE_H

#include "base/text.h"

/* json: an object with what is shown. */
void plan_page_html(const struct text *json, const char *title, struct text *out);

#endif
