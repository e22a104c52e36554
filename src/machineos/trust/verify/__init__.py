"""Who signed these bytes: certificate chains, signatures, PKCS#7."""
