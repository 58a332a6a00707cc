/* report/page_files.h - the files of src/report/page/, as cmake/embed.cmake makes them part of the
 * program: the template, the style, and all scripts one after the other. */
#ifndef HEADWAY_PAGE_FILES_H
#define HEADWAY_PAGE_FILES_H

extern const char page_template[], page_style[], page_script[];

#endif
