// The element kz-gallery.
import { Part } from "../shell/part.js";

class Gallery extends Part {}

customElements.define("kz-gallery", Gallery);
