// The element kz-picture.
import { Part } from "../shell/part.js";

class Picture extends Part {}

customElements.define("kz-picture", Picture);
