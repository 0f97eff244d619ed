/* Signals that people send: Ctrl-C stops what goes on, the others end the program. */
#ifndef APP_INTERRUPT_H
#define APP_INTERRUPT_H

#include <signal.h>

extern volatile sig_atomic_t interrupt_seen; /* Ctrl-C; whoever acts on it sets it to 0 */
extern volatile sig_atomic_t interrupt_end;  /* the signal that ends the program; 0: none yet */

/* once: a second Ctrl-C ends the program as it would without this. */
void interrupt_catch(int once);

#endif
