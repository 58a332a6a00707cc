#include "report/plan_page.h"

#include "report/run_page.h"

/* Only strings of JSON can hold "<", and there it can be written otherwise: no text of a plan's
 * names can end the block that it stands in. */
void plan_page_html(const struct text *json, const char *title, struct text *out)
{
    struct text data = { 0 };
    text_add(&data, "{\"plan\":");
    for (i64 i = 0; i < json->length; i++)
        if (json->data[i] == '<')
            text_add(&data, "\\u003c");
        else
            text_add_bytes(&data, json->data + i, 1);
    text_add(&data, "}");
    run_page_html(&data, title, out);
    text_fini(&data);
}
