// Where the keyboard goes when what had it comes or goes.

/** For the `ref` of a field that has just come up: it takes the focus only if nothing else has it. One and the same
 * function, so that it is called when the field comes and not each time it is shown anew. */
export function focusIfFree(field: HTMLElement | null): void {
  if (field && document.activeElement === document.body) field.focus();
}

/** Back to where questions are typed. */
export function focusQuestion(): void {
  document.getElementById("question")?.focus();
}
