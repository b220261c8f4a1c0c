package provisioning

import (
	"encoding/json"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// texts are parameters by name. A value of null is refused like a number: both
// decoders would take it for the empty text, and make one thing of all devices
// whose serial number is missing.
type texts map[string]string

func (t *texts) UnmarshalJSON(data []byte) error { return t.read(json.Unmarshal, data) }

func (t *texts) UnmarshalCBOR(data []byte) error { return t.read(cborDecoder.Unmarshal, data) }

var (
	_ json.Unmarshaler = (*texts)(nil)
	_ cbor.Unmarshaler = (*texts)(nil)
)

func (t *texts) read(decode func([]byte, any) error, data []byte) error {
	var values map[string]*string
	err := decode(data, &values)
	if err != nil {
		return fmt.Errorf("couldn't read a map of texts: %w", err)
	}
	*t = nil
	if values == nil {
		return nil
	}
	*t = make(texts, len(values))
	for name, value := range values {
		if value == nil {
			return fmt.Errorf("the value of %q is null and not a text", name)
		}
		(*t)[name] = *value
	}
	return nil
}
