/** Elements that hold text: whatever comes from outside is put into the page by these, never as markup. */

/** An element with text in it, and attributes that are set as properties of `dataset`. */
export function element(tag, className, text = '', data = {}) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  Object.assign(made.dataset, data);
  return made;
}
