/* The terminal as a whole: panes of a conversation, and keys. */
#ifndef APP_SCREEN_H
#define APP_SCREEN_H

#include "edit.h"
#include "transcript.h"

/* What is to be seen. */
struct view {
    struct transcript *talk;
    const struct edit *edit;
    size_t top;   /* first row of the conversation that is seen; set by drawing while it follows */
    bool follow;  /* the end is seen */
    size_t page;  /* rows that are seen; set by drawing */
    const char *title, *hint;   /* above the conversation, above what is typed */
    const char *status, *right; /* in the last row; right is left out where there is no room */
};

enum press {
    PRESS_NONE, /* for now */
    PRESS_CHAR, PRESS_ENTER, PRESS_NEWLINE, PRESS_PASTE_BEGIN, PRESS_PASTE_END, PRESS_TAB, PRESS_BACK_TAB, PRESS_END_OF_TEXT, PRESS_ESCAPE,
    PRESS_LEFT, PRESS_RIGHT, PRESS_UP, PRESS_DOWN, PRESS_WORD_LEFT, PRESS_WORD_RIGHT, PRESS_HOME, PRESS_END,
    PRESS_BACKSPACE, PRESS_DELETE, PRESS_DELETE_WORD, PRESS_DELETE_TO_START, PRESS_DELETE_TO_END,
    PRESS_PAGE_UP, PRESS_PAGE_DOWN, PRESS_WHEEL_UP, PRESS_WHEEL_DOWN, PRESS_TOP, PRESS_BOTTOM, PRESS_THINKING, PRESS_REDRAW,
};

int screen_open(bool color); /* 0 or an exit code after printing why; screen_close after 0 */
void screen_close(void);
void screen_draw(struct view *v);
enum press screen_key(wchar_t *c); /* c: of PRESS_CHAR */
int screen_text_width(void);       /* columns for what is typed */

#endif
