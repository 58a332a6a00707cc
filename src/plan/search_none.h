/* plan/search_none.h - why a search found nothing.
 *
 * Of all layouts that are as was asked for, that which breaks the fewest rules says what the matter
 * is: rules of what can exist, of what is searched, and of what the software runs. */
#ifndef HEADWAY_PLAN_SEARCH_NONE_H
#define HEADWAY_PLAN_SEARCH_NONE_H

#include "plan/search.h"

/* Sets the error and returns it: ERR_LIMIT where nothing fits into memory, else ERR_CONFIG. */
int plan_search_none(const struct plan_search *s, const struct plan_search_result *r,
                     struct arena *a);

#endif
