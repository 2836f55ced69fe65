/** An error whose message is one sentence for the person who caused it: a photo, a bundle or an option to mend. */
export class CaptionError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = "CaptionError";
  }
}
